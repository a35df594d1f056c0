"""artifact.md: each answer and number comes from a record, or is "not recorded"."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from helpers.repository import ROOT, edit, run_snakemake
from helpers.stored import change, finish
from rankwise.core import provenance, result
from rankwise.core.lock import lock_digest
from rankwise.core.store import StoreError
from rankwise.report.artifact import page
from rankwise.report.records import UNKNOWN, Records, hours_by_device
from rankwise.study import jobs, outputs, text_outputs
from rankwise.study.plan import Plan

ENVIRONMENT = {
    "python": "3.11.7",
    "platform": "Linux-test",
    "packages": {"torch": "2.13.0"},
    "differs_from_lock": {},
}
OTHER_ENVIRONMENT = {**ENVIRONMENT, "differs_from_lock": {"torch": "2.9, locked 2.13.0"}}
COST = {"train_time_s": 3000.0, "evaluation_time_s": 600.0}  # an hour per run
TRAINED = {"metrics": {"accuracy_fraction": 0.5, "updates": 252}, "cost": COST}
DIVERGED = {
    "status": "diverged",
    "reason": "update 3: the gradient of classifier.weight is not finite (loss nan)",
    "diverged": {"update": 3, "what": "gradient", "parameter": "classifier.weight"},
}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan(yaml.safe_load((ROOT / "config/demo.yaml").read_text()), ROOT, "config/demo.yaml")


@pytest.fixture(scope="module")
def root(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result for every cell of the demo; one run diverged, one ran in another environment."""
    root = tmp_path_factory.mktemp("root")
    for measurement in text_outputs.EVERY:
        for number, job in enumerate(jobs.cell_jobs(plan, measurement)):
            content, environment = {}, ENVIRONMENT
            if measurement == "train":
                content = DIVERGED if number == 2 else TRAINED
                environment = OTHER_ENVIRONMENT if number == 3 else ENVIRONMENT
            finish(root, job, environment, **content)
    return root


@pytest.fixture
def root_copy(root: Path, tmp_path: Path) -> Path:
    """The same results, to change."""
    return shutil.copytree(root, tmp_path / "copy", symlinks=True)


def page_of(plan: Plan, root: Path, **frames: pd.DataFrame) -> str:
    return page(Records(jobs.document(plan, outputs.ARTIFACT).request, plan, root, frames))


def row(text: str, item: str) -> list[str]:
    """The cells of the table row that starts with `item`."""
    rows = re.findall(rf"^\| {re.escape(item)} \| (.*) \|$", text, flags=re.MULTILINE)
    assert len(rows) == 1, f"{item}: {len(rows)} rows"
    return rows[0].split(" | ")


def test_texts_that_were_trained_on_are_counted(plan: Plan, root_copy: Path) -> None:
    assert row(page_of(plan, root_copy), "generated_reviews")[4] == UNKNOWN
    overlap = {
        "split": "validation", "compared": "texts", "compared_rows": 1200, "exact_rows": 1001,
        "exact_fraction": 0.83, "normalised_rows": 1100, "normalised_fraction": 0.92,
    }  # fmt: skip
    prepared = next(job for job in jobs.input_jobs(plan) if job.name == "generated_reviews")
    finish(root_copy, prepared, ENVIRONMENT, splits={}, data={"overlap": [overlap]})
    told = row(page_of(plan, root_copy), "generated_reviews")
    assert told[3:5] == ["validation", "1,001 of 1,200 texts; 1,100 normalised"]


def test_counts_failures_seeds_and_hours_are_those_of_the_results(plan: Plan, root: Path) -> None:
    text = page_of(plan, root)
    cells = sum(len(plan.cells(name)) for name in text_outputs.EVERY)
    # runs, ok, out of memory, diverged, unsupported
    assert row(text, "train") == ["18", "17", "0", "1", "0"]
    assert row(text, "memory") == ["17", "17", "0", "0", "0"]
    assert row(text, "number of runs")[1].startswith(f"{cells};")
    assert DIVERGED["reason"] in text
    assert row(text, "seeds") == ["yes", "0, 1, 2"]
    hours = f"17 CPU hours of wall clock in the 17 of {cells} jobs on cpu that record theirs"
    assert row(text, "Time to complete") == [hours]
    full = row(text, "tiny | generated_reviews | full | 0")
    assert full == ["3", "0.001", "32", "252", "3e+03"]


def test_kept_weights_are_counted_with_their_size(plan: Plan, root_copy: Path) -> None:
    """Of 18 runs two keep an adapter of 1.5 MiB each, and one keeps a model of 4 MiB."""
    first, second, third = jobs.cell_jobs(plan, "train")[:3]
    for job, kind, size in (
        (first, "adapter", 3 * 2**19),
        (second, "adapter", 3 * 2**19),
        (third, "merged", 2**22),
    ):
        (root_copy / job.path).resolve().unlink()
        weights = {"kind": kind, "files": {}, "bytes": size}
        finish(root_copy, job, ENVIRONMENT, **TRAINED, weights=weights)
    (text,) = row(page_of(plan, root_copy), "Weights")
    assert text.startswith(
        "adapter: 2 of 18 runs, 3.0 MiB; merged: 1 of 18 runs, 4.0 MiB; none: 15 of 18 runs; kept "
    )


def test_environments_and_their_differences_are_shown(plan: Plan, root: Path) -> None:
    text = page_of(plan, root)
    lock = lock_digest(ROOT / "envs/cpu.lock")
    rows = re.findall(rf"^\| envs/cpu.lock \({lock}\) \|.*\|$", text, flags=re.MULTILINE)
    assert [line.split(" | ")[4] for line in rows] == ["nothing", "torch 2.9, locked 2.13.0"]
    assert row(text, "installed as pinned")[0] == "partly"


def test_what_no_record_holds_is_not_recorded(plan: Plan, root: Path) -> None:
    text = page_of(plan, root)
    assert row(text, "Hardware") == [f"cpu: name {UNKNOWN}"]
    assert row(text, "Archived") == [UNKNOWN]
    assert row(text, "examples of each split counted")[0] == "no"  # there is no prepared input
    assert f"{UNKNOWN} in config/datasets.yaml" in text


def test_a_gpu_has_its_name_its_hours_and_its_peak(plan: Plan, root_copy: Path) -> None:
    job = jobs.cell_jobs(plan, "train")[0]
    cost = {**COST, "peak_allocated_bytes": 3 * 2**20, "device_name": "NVIDIA H100"}
    environment = {**ENVIRONMENT, "driver": "570.1"}
    shutil.rmtree((root_copy / job.path).resolve().parent)
    finish(root_copy, job, environment, device="cuda", cost=cost)
    text = page_of(plan, root_copy)
    hardware = row(text, "Hardware")[0]
    assert "cuda: NVIDIA H100" in hardware
    assert "at most 3.0 MiB allocated on a GPU in training" in hardware
    hours = "1 GPU hours of wall clock in the 1 of 1 jobs on cuda"
    assert hours in row(text, "Time to complete")[0]
    assert "| 570.1 |" in text


def test_hours_are_of_every_gpu_that_a_job_takes() -> None:
    """An hour of training on four GPUs, half an hour of a start there, an evaluation, a profile."""
    four = {"schedule": {"processes": 4}}
    trained = {"measurement": "train", "device": "cuda", "request": four}
    hours = hours_by_device([
        {**trained, "cost": COST},
        {**trained, "cost": {**COST, "start_time_s": 1800.0}},
        {"measurement": "evaluate", "device": "cuda", "request": {}, "cost": {"evaluate_time_s": 900.0}},
        {"measurement": "forward", "device": "cuda", "request": {}, "cost": {"taint": ""}},
        {"measurement": "train", "device": "cpu", "request": four, "cost": COST},
    ])  # fmt: skip
    assert hours == {"cuda": (4 + 6 + 0.25, 3, 4), "cpu": (1, 1, 1)}


def test_a_licence_is_named_or_its_lack_is(demo: dict, plan: Plan, root: Path) -> None:
    text = page_of(plan, root)
    assert row(text, "distilbert")[-1] == "Apache-2.0"
    datasets = plan.library["datasets"]
    used = ("generated_reviews", "generated_text", "sst2")
    lacking = {name for name in used if "licence" not in datasets[name]}
    answer, where = row(text, "licences of data and weights named")
    assert answer == "partly"
    named = where.split("config/datasets.yaml has none for ")[1]
    assert set(named.split(", ")) == lacking
    licensed = Plan(demo, ROOT, "config/demo.yaml")
    for kind in ("models", "datasets"):
        for entry in licensed.library[kind].values():
            entry.setdefault("licence", "CC0")
    assert row(page_of(licensed, root), "licences of data and weights named")[0] == "yes"


def test_findings_are_counted(plan: Plan, root: Path) -> None:
    claims = pd.DataFrame({"verdict": ["reproduced"] * 3 + ["not yet run"]})
    verdicts = ["tied", "a better", "tied"]
    pairs = pd.DataFrame({"verdict": verdicts, "test": "t, paired", "margin": 0.01})
    text = page_of(plan, root, claims=claims, comparisons=pairs)
    assert row(text, "reproduced") == ["3"]
    assert row(text, "not yet run") == ["1"]
    expected = "3 pairs tested by t, paired, margin 0.01: 2 tied, 1 a better"
    assert expected in row(text, "variation over seeds")[1]


def test_a_stale_result_is_refused(plan: Plan, root_copy: Path) -> None:
    path = root_copy / plan.path("train", plan.cells("train")[0])
    change(path, request={**result.read(path)["request"], "cpu_threads": 99})
    with pytest.raises(StoreError, match=r"train\.json: it answers request \w+; allowed: a result"):
        page_of(plan, root_copy)


def test_every_file_and_command_named_is_there(plan: Plan, root: Path) -> None:
    text = page_of(plan, root)
    for name in re.findall(r"(?:config|docs|envs|src|workflow_scripts)/[\w/]+\.\w+", text):
        assert (ROOT / name).is_file(), name
    assert ".venv/ready:" in (ROOT / "Makefile").read_text()
    assert f"\n{text_outputs.command(plan, plan.output(outputs.ARTIFACT))}\n" in text


def test_a_tracker_is_no_part_of_the_request(demo: dict) -> None:
    without, with_one = (
        text_outputs.artifact_request(Plan({**demo, "tracker": name}, ROOT, "x"))
        for name in ("none", "tensorboard")
    )
    assert without == with_one


@pytest.mark.slow
def test_the_rules_write_both_texts_of_a_real_study(clone: Path) -> None:
    edit(clone / "config/models.yaml", "schedule: {updates: 900", "schedule: {updates: 2")
    edit(clone / "config/datasets.yaml", "rows: {train: 12000", "rows: {train: 1200")
    targets = ("results/rerun/artifact.md", "results/rerun/numbers.json")
    arguments = (*targets, "--configfile", "tests/studies/rerun.yaml", "--cores", "2")
    done = run_snakemake(clone, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    text = (clone / "results/rerun/artifact.md").read_text()
    assert row(text, "train") == ["3", "3", "0", "0", "0"]
    assert "train 2,000" in row(text, "generated_reviews")[2]
    digests = set()
    for folder in ("runs", "profiles"):
        for path in (clone / "results/rerun" / folder).glob("**/*.json"):
            digests.add(provenance.digest(result.read(path)["request"]))
    by_name = json.loads((clone / "results/rerun/numbers.json").read_text())
    assert by_name["tiny/generated_reviews/lora/r2/accuracy_percent"]["runs"][0] in digests
    for name, entry in by_name.items():
        assert set(entry["runs"]) <= digests
        assert entry["runs"] or name.startswith("claims/")
    assert (clone / "results/rerun/numbers.tex").is_file()
    again = run_snakemake(clone, *arguments)
    assert "Nothing to be done" in again.stderr + again.stdout
