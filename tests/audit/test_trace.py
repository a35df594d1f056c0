"""From a figure, a table, a cell of one, a claim or a page back to the runs: ids, sources, environment, commands."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from matplotlib.figure import Figure

from helpers.repository import CLEAN, ROOT, edit, run_snakemake
from helpers.stored import finish, store_result
from rankwise.analysis import tables, tidy
from rankwise.analysis.costs import costs
from rankwise.analysis.evidence import comparisons, estimates
from rankwise.analysis.scores import groups
from rankwise.analysis.summary import summary
from rankwise.audit import lineage, staleness
from rankwise.audit.trace import trace
from rankwise.cli.main import main
from rankwise.core import provenance, result
from rankwise.core.config import ConfigError
from rankwise.core.lock import lock_digest
from rankwise.report import style
from rankwise.study import claims, jobs, outputs
from rankwise.study.plan import Plan

ENVIRONMENT = {
    "python": "3.11",
    "platform": "Linux",
    "packages": {"torch": "2"},
    "differs_from_lock": {},
}
DEMO = "config/demo.yaml"


def fill(root: Path, plan: Plan, measurement: str) -> None:
    """A result for every cell, that answers its request; the numbers mean nothing."""
    for job in jobs.cell_jobs(plan, measurement):
        metrics = (
            {"accuracy_fraction": 0.5} if measurement == "train" else {"optimizer_state_bytes": 8}
        )
        scores = (
            {"examples": {"correct_fraction": [1.0, 0.0], "predictions": [1, 1]}}
            if measurement == "train"
            else {}
        )
        finish(root, job, ENVIRONMENT, metrics=metrics, **scores)


def results(root: Path, plan: Plan, measurement: str) -> list[tidy.Planned]:
    return [tidy.Planned(root / job.path) for job in jobs.cell_jobs(plan, measurement)]


def gather(root: Path, plan: Plan, table: str) -> Path:
    planned = results(root, plan, outputs.TABLE_SOURCES[table])
    tables.write(tidy.collect(planned), root / f"results/demo/tables/{table}")
    return root / f"results/demo/tables/{table}.csv"


def draw(root: Path, figure: str) -> None:
    frames = [
        tables.read(root / f"results/demo/tables/{name}.csv")
        for name in outputs.FIGURE_TABLES[figure]
    ]
    ids = [run for frame in frames for run in frame["request_digest"]]
    style.save(Figure(), root / f"results/demo/figures/{figure}.png", ids)


def planned(name: str) -> Plan:
    return Plan(yaml.safe_load((ROOT / name).read_text()), ROOT, name)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned(DEMO)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> Path:
    """The demo's training runs and memory profiles, their tables and two figures, in a tree that shares our sources."""
    root = tmp_path_factory.mktemp("built")
    for folder in ("config", "envs", "src", "workflow_scripts"):
        (root / folder).symlink_to(ROOT / folder)
    for measurement, table in (("train", "runs"), ("memory", "memory")):
        fill(root, plan, measurement)
        gather(root, plan, table)
    frames = {
        name: tables.read(root / f"results/demo/tables/{name}.csv") for name in ("runs", "memory")
    }
    found = groups(frames["runs"], tidy.examples(results(root, plan, "train")))
    frames |= {
        "estimates": estimates(found),
        "comparisons": comparisons(found, plan.study["equivalence"]),
    }
    tables.write(
        summary(frames, costs(frames), dict(outputs.labels(plan))),
        root / "results/demo/tables/summary",
    )
    for figure in ("memory", "accuracy_memory"):
        draw(root, figure)
    return root


@pytest.fixture
def mine(built: Path, tmp_path: Path) -> Path:
    """The same, to change."""
    return shutil.copytree(built, tmp_path / "mine", symlinks=True)


def ids(found: dict) -> set[str]:
    return {run["run"] for run in found["runs"]}


@pytest.mark.parametrize("end", ["png", "svg"])
def test_a_figure_is_its_runs_with_their_sources_environment_and_commands(
    built: Path, plan: Plan, end: str
) -> None:
    found = trace(f"results/demo/figures/memory.{end}", built)
    planned = [plan.request("memory", cell) for cell in plan.cells("memory")]
    assert ids(found) == {provenance.digest(request) for request in planned}
    assert (found["study"], found["notes"], found["changed"]) == (DEMO, [], [])
    assert (
        found["command"]
        == f".venv/bin/snakemake results/demo/figures/memory.{end} --configfile {DEMO} --cores all"
    )
    run = next(run for run in found["runs"] if run["cell"]["method"] == "lora")
    code = found["sources"][run["sources"]]
    own = provenance.code_digest(ROOT / "src/rankwise/methods/lora.py")
    assert code["src/rankwise/methods/lora.py"] == own
    assert all((ROOT / file).is_file() for file in code)
    assert run["environment"]["lock_digest"] == lock_digest(ROOT / "envs/cpu.lock")
    assert (
        run["command"]
        == f".venv/bin/python workflow_scripts/memory.py --request @{run['result']} --output again/memory.json"
    )


def test_a_figure_of_two_tables_is_the_runs_of_both(built: Path, plan: Plan) -> None:
    found = trace("results/demo/figures/accuracy_memory.svg", built, DEMO)
    assert len(found["runs"]) == len(plan.cells("train")) + len(plan.cells("memory"))
    assert found["notes"] == []


SEEDS = [f"train lora/r8/seed{seed}" for seed in range(3)]


@pytest.mark.parametrize(("target", "expected"), [
    ("results/demo/tables/runs.csv:3", ["train full/r0/seed1"]),
    ("results/demo/tables/runs.csv:method=lora,rank=8", [*SEEDS]),
    ("results/demo/tables/runs.csv:method=lora,rank=8.0,seed=1:accuracy_fraction", ["train lora/r8/seed1"]),
    ("results/demo/tables/runs.md:method=LoRA,rank=2,seed=0", ["train lora/r2/seed0"]),
    ("results/demo/tables/summary.csv:method=lora,rank=8:accuracy_percent", [*SEEDS]),
    ("results/demo/tables/summary.csv:method=lora,rank=8:optimizer_state_mib", ["memory lora/r8"]),
    ("results/demo/tables/summary.csv:method=Head only", ["memory head_only/r0", *(seed.replace("lora/r8", "head_only/r0") for seed in SEEDS)]),
    ("results/demo/runs/tiny/generated_reviews/rsvd/r2/seed0/train.json", ["train rsvd/r2/seed0"]),
])  # fmt: skip
def test_a_row_or_a_cell_is_its_runs_and_no_others(
    built: Path, target: str, expected: list[str]
) -> None:
    runs = trace(target, built, DEMO)["runs"]
    names = ["/".join(Path(run["result"]).parts[5:-2]) for run in runs]
    assert (
        sorted(f"{run['measurement']} {name}" for run, name in zip(runs, names, strict=True))
        == expected
    )


@pytest.mark.parametrize("study", ["demo", "config", "gpu"])
def test_every_target_of_a_study_comes_from_runs(study: str) -> None:
    """A file that a study can build and that no run is behind is a hole in the trail."""
    found = planned(f"config/{study}.yaml")
    for target in jobs.targets(found):
        assert lineage.is_result(found, target) or lineage.tables(found, target), target


def test_a_run_that_is_not_there_says_how_to_make_it(mine: Path, plan: Plan) -> None:
    path = plan.path("memory", plan.cells("memory")[0])
    shutil.rmtree((mine / path).resolve().parent)
    found = trace("results/demo/figures/memory.png", mine, DEMO)
    assert found["runs"][0]["status"] == "not there"
    assert (
        found["runs"][0]["command"] == f".venv/bin/snakemake {path} --configfile {DEMO} --cores all"
    )
    assert "results/demo/tables/memory.csv is stale: 1 of its 17 runs" in found["notes"][0]


def made_before(root: Path, job: jobs.PlannedJob, **changes: object) -> dict:
    """The request of a result that was made in place of the planned one, before an edit."""
    shutil.rmtree((root / job.path).resolve().parent)
    request = {**job.request, **changes}
    store_result(root, request, lambda _: {"metrics": {}}, ENVIRONMENT)
    table = root / "results/demo/tables/memory.csv"
    edit(table, job.digest, provenance.digest(request))
    return request


def test_what_is_made_of_other_runs_is_stale(mine: Path, plan: Plan) -> None:
    """The table shows a run that is no longer planned; the figure is not of that table."""
    job = jobs.cell_jobs(plan, "memory")[3]
    other = made_before(mine, job, shapes={**job.request["shapes"], "batch_size": 7})
    found = trace("results/demo/figures/memory.png", mine, DEMO)
    assert [run["stale"] for run in found["runs"] if "stale" in run] == [
        f"{DEMO} now plans {job.digest}"
    ]
    assert provenance.digest(other) in ids(found)
    assert "results/demo/tables/memory.csv is stale: 1 of its 17 runs" in found["notes"][0]
    for end in ("png", "svg", "pdf"):
        notes = staleness.notes(plan, f"results/demo/figures/memory.{end}", mine)
        assert notes[1:] == [
            f"results/demo/figures/memory.{end} is stale: it was made from other runs than those in "
            "its tables"
        ]
    draw(mine, "memory")
    for end in ("png", "svg", "pdf"):
        assert len(staleness.notes(plan, f"results/demo/figures/memory.{end}", mine)) == 1


def test_a_changed_source_is_named(mine: Path, plan: Plan) -> None:
    job = next(job for job in jobs.cell_jobs(plan, "memory") if job.cell.method == "lora")
    made_before(mine, job, code={**job.request["code"], "rankwise.methods.lora": "0" * 16})
    found = trace("results/demo/tables/memory.csv", mine, DEMO)
    assert found["changed"] == ["src/rankwise/methods/lora.py"]


def test_a_claim_is_the_results_that_decide_it(mine: Path) -> None:
    known = claims.expand(planned("config/shapes.yaml").library["claims"])
    compared = next(
        name
        for name, claim in known.items()
        if claim.get("table") == "memory" and "cell" in claim.get("against", {})
    )
    undecidable = next(name for name, claim in known.items() if "table" not in claim)
    cell, other = (
        known[compared]["cell"],
        {**known[compared]["cell"], **known[compared]["against"]["cell"]},
    )
    rows = [f"{name},1" for name in (compared, undecidable)]
    text = "\n".join(["claim,published", *rows, ""])
    study = planned(known[compared]["study"])
    for results in (study.results, "results/demo"):
        (mine / results).mkdir(parents=True, exist_ok=True)
        (mine / results / "claims.csv").write_text(text)
    found = trace(f"{study.results}/claims.csv:{compared}", mine, study.file)
    assert {tuple(sorted(run["cell"].items())) for run in found["runs"]} == {
        tuple(sorted(one.items())) for one in (cell, other)
    }
    assert {run["measurement"] for run in found["runs"]} == {"memory"}
    found = trace(f"results/demo/claims.csv:{undecidable}", mine, DEMO)
    assert found["runs"] == []
    assert f"no run of {DEMO} is behind it" in found["notes"]


@pytest.mark.parametrize(("target", "message"), [
    ("results/demo/figures/memroy.png", "target: got 'results/demo/figures/memroy.png', allowed: files that the study plans, nearest: results/demo/figures/memory.png"),
    ("results/demo/tables/runs.csv:99", "results/demo/tables/runs.csv: line: got 99, allowed: 2 to 19"),
    ("results/demo/tables/runs.csv:1", "line: got 1, allowed: 2 to 19"),
    ("results/demo/tables/runs.csv:metod=lora", "row: got 'metod', allowed: .* \\(nearest: 'method'\\)"),
    ("results/demo/tables/runs.csv:method=lora,rank=9", "row: got 'method=lora,rank=9', allowed: method=lora,rank=2; method=lora,rank=8; "),
    ("results/demo/tables/summary.csv:rank=8:acuracy", "column: got 'acuracy', allowed: .*accuracy_percent"),
    ("results/demo/tables/flops.csv:3", "results/demo/tables/flops.csv: row: got '3', allowed: rows of a table that is there"),
    ("", "target: got '', allowed: FILE, FILE:ROW or FILE:ROW:COLUMN"),
])  # fmt: skip
def test_nonsense_is_one_sentence(built: Path, target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trace(target, built, None if "memroy" in target else DEMO)


BROKEN_STUDIES = {
    "no YAML": "name: x\nquestion: [?\n",
    "an unknown method": "name: x\nquestion: '?'\ndevice: cpu\n"
    "train: [{models: [tiny], datasets: [generated_reviews], methods: [lorra], seeds: [0]}]\n",
}


@pytest.mark.parametrize("mistake", BROKEN_STUDIES)
def test_another_study_that_is_broken_stops_nothing(
    mistake: str, built: Path, tmp_path: Path
) -> None:
    root = tmp_path / "project"
    shutil.copytree(built, root)
    (root / "config/a_broken_one.yaml").write_text(BROKEN_STUDIES[mistake])
    target = "results/demo/tables/runs.csv"
    named = trace(target, root, DEMO)
    assert not [note for note in named["notes"] if "passed over" in note]
    found = trace(target, root)
    assert [run["run"] for run in found["runs"]] == [run["run"] for run in named["runs"]]
    notes = [note for note in found["notes"] if "passed over" in note]
    assert [note.partition(" is passed over")[0] for note in notes] == ["config/a_broken_one.yaml"]
    with pytest.raises(ConfigError, match=r"config/a_broken_one\.yaml is passed over"):
        trace("results/figures/memroy.png", root)
    with pytest.raises(ConfigError, match=r"^config/a_broken_one\.yaml: "):
        trace(target, root, "config/a_broken_one.yaml")


def test_the_command_prints_each_run_once_or_json(
    built: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(built)
    target = "results/demo/tables/summary.csv:method=lora,rank=8:accuracy_percent"
    assert main(["trace", target, "--json", "--study", DEMO]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["trace", target, "--study", DEMO]) == 0
    printed = capsys.readouterr().out
    for run in found["runs"]:
        assert sum(line.startswith(run["run"]) for line in printed.splitlines()) == 1
        assert run["command"] in printed
    assert printed.count("torch 2") == 1  # both ran in one environment
    assert printed.count("src/rankwise/methods/lora.py") == 1
    assert main(["trace", "results/demo/figures/memory.png", "--study", "config/nope.yaml"]) == 1
    assert "config/nope.yaml: file: got 'nothing'" in capsys.readouterr().err


def test_help_loads_neither_the_plan_nor_pandas() -> None:
    code = "import sys, rankwise.cli.main; print([name for name in ('pandas', 'torch', 'rankwise.audit.trace') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=CLEAN, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.slow
def test_the_commands_of_a_real_study_rebuild_its_figure_and_its_run(
    clone: Path, tmp_path: Path
) -> None:
    study = "tests/studies/rerun.yaml"
    done = run_snakemake(
        clone, "results/rerun/figures/memory.png", "--configfile", study, "--cores", "2"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (clone / ".venv").symlink_to(Path(sys.executable).parents[1])
    found = trace("results/rerun/figures/memory.png", clone, study)
    assert (len(found["runs"]), found["notes"], found["changed"]) == (3, [], [])
    run = next(run for run in found["runs"] if run["cell"]["method"] == "rsvd")
    environment = {**CLEAN, "PYTHONPATH": str(clone / "src")}
    again = subprocess.run(
        run["command"].split(), cwd=clone, env=environment, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    rebuilt_run = result.read(clone / "again/memory.json")
    stored = result.read(clone / run["result"])
    assert (rebuilt_run["metrics"], rebuilt_run["request"]) == (
        stored["metrics"],
        stored["request"],
    )
    (clone / "results/rerun/figures/memory.png").unlink()
    rebuilt = subprocess.run(
        found["command"].split(), cwd=clone, env=CLEAN, capture_output=True, text=True
    )
    assert rebuilt.returncode == 0, rebuilt.stderr[-3000:]
    assert (clone / "results/rerun/figures/memory.png").is_file()
