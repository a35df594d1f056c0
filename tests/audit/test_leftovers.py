"""`rankwise clean`: what a study no longer plans goes, and nothing else."""

import shutil
from pathlib import Path

import pytest

from helpers.merging import CELL, keep, planned_jobs, plant_older, rankwise, small_project
from helpers.stored import change
from rankwise.audit.leftovers import clean, leftovers, uncollected
from rankwise.audit.store_collect import collect
from rankwise.core import source_facts
from rankwise.study.jobs import document_jobs
from rankwise.study.plan import Plan, read_plan
from rankwise.study.settle import settle

STUDY, PAPER = "config/mine.yaml", "config/config.yaml"
TRAIN = f"train {CELL}/seed0"


@pytest.fixture(params=[STUDY, PAPER])
def study(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def here(tmp_path: Path, study: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose study is built: all results, documents, notes and logs that it plans."""
    monkeypatch.delenv("RANKWISE_STORE", raising=False)
    root = small_project(tmp_path / "here")
    (root / STUDY).rename(root / study)
    plan = read_plan(root, study)
    keep(root, *planned_jobs(root, study).values())
    settle(plan)
    for job in document_jobs(plan):
        for path in job.outputs:
            write(root / path)
    for job in [*planned_jobs(root, study).values(), *document_jobs(plan)]:
        write(root / job.log)
    return root


def write(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("written")
    return file


def files(root: Path) -> set[str]:
    """Everything in results/ and logs/ but the store, and what is remembered of the sources."""
    found = set()
    for top in ("results", "logs"):
        found |= {
            str(path.relative_to(root))
            for path in (root / top).rglob("*")
            if path.is_symlink() or path.is_file()
        }
    found.discard(str(source_facts.KEPT))
    return {path for path in found if not path.startswith("results/store/")}


def edited(here: Path, study: str, old: str, new: str) -> Plan:
    file = here / study
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    return read_plan(here, study)


def test_a_study_as_planned_has_no_leftovers(here: Path, study: str) -> None:
    assert leftovers(read_plan(here, study)) == []


def test_other_studies_the_store_and_a_users_own_files_are_no_leftovers(
    here: Path, study: str
) -> None:
    results = read_plan(here, study).results
    own = [
        "results/store/runs/tiny/x.json", "results/checkpoints/x.pt", "results/.cache/sha256/x.json", "results/.requests/x.json",
        "results/elsewhere/runs/tiny/d/lora/r2/seed0/0123456789abcdef/train.json", "results/elsewhere/tables/runs.csv",
        "results/elsewhere/report.html", f"{results}/tables/notes.txt", f"{results}/figures/photo.png", f"{results}/mine.txt",
        f"{results}/exports/system_a/x.csv", "logs/slurm/x.log", "logs/elsewhere/train/x.log",
    ]  # fmt: skip
    for path in own:
        write(here / path)
    assert leftovers(read_plan(here, study)) == []
    assert uncollected(read_plan(here, study)) == []


def test_old_settings_leave_links_logs_and_nothing_of_the_store(here: Path, study: str) -> None:
    before, plan = files(here), edited(here, study, "updates: 2", "updates: 3")
    settle(plan)
    found = leftovers(plan)
    prefix, logs = plan.results, plan.logs
    cells = ["full/r0/seed0", "lora/r2/seed0"]
    assert sorted(
        {path.rsplit("/", 2)[0] for path in found if path.startswith(f"{prefix}/runs")}
    ) == [f"{prefix}/runs/tiny/generated_reviews/{cell}" for cell in cells]
    of_logs = {
        path.removeprefix(f"{logs}/").split("/")[0] for path in found if path.startswith("logs/")
    }
    assert of_logs == {"train", "trial", "choose", "predict"}
    kinds = {
        path.removeprefix(f"{prefix}/").split("/")[0]
        for path in found
        if path.startswith("results/")
    }
    assert kinds == {"runs", "search", "profiles"}
    stored = sorted((here / "results/store").rglob("*.json"))
    clean(plan, found)
    assert before - files(here) == set(found)
    assert sorted((here / "results/store").rglob("*.json")) == stored
    assert leftovers(plan) == []
    assert not any(
        path.is_dir() and not any(path.iterdir()) for path in (here / prefix / "runs").rglob("*")
    )


def test_documents_that_are_no_more_planned_go_with_their_notes(here: Path, study: str) -> None:
    plan = edited(here, study, "measurements: [memory, throughput]", "measurements: [throughput]")
    settle(plan)
    found = {path.removeprefix(f"{plan.results}/") for path in leftovers(plan)}
    tables = {f"tables/memory.{ending}" for ending in ("csv", "md", "tex", "parquet")}
    figures = {
        f"figures/{name}.{ending}"
        for name in ("memory", "accuracy_memory")
        for ending in ("png", "svg", "pdf")
    }
    assert tables | figures <= found
    assert {
        ".documents/tables/memory.csv.planned.json",
        ".documents/figures/memory.png.planned.json",
    } <= found
    assert {path.split("/")[0] for path in found if "memory" not in path} == set()


def test_a_result_of_the_older_layout_goes_when_the_store_has_it(here: Path, study: str) -> None:
    jobs = planned_jobs(here, study)
    plan = edited(here, study, "updates: 2", "updates: 3")
    clean(plan, leftovers(plan))
    request = {**jobs[TRAIN].request, "cpu_threads": 99}
    (file,) = plant_older(here, jobs[TRAIN])
    change(file, request=request)
    if study == STUDY:  # the older layout had no folders of studies
        moved = here / plan.results / file.relative_to(here / "results")
        moved.parent.mkdir(parents=True, exist_ok=True)
        file = file.rename(moved)
    path = str(file.relative_to(here))
    assert (leftovers(plan), uncollected(plan)) == ([], [path])
    done = rankwise(here, "clean", "--study", study, "--yes")
    assert (
        f"1 result that no store has stay, such as {path}: `rankwise collect .`" in done.stdout
    ), done.stderr
    assert file.is_file()
    collect([str(here)], here)
    assert (leftovers(plan), uncollected(plan)) == ([path], [])


@pytest.mark.parametrize(
    "study", [PAPER], indirect=True
)  # the older layout had no folders of studies
def test_older_inputs_go_with_their_data_files(here: Path, study: str) -> None:
    (file,) = plant_older(here, planned_jobs(here, study)["model tiny"])
    plan = read_plan(here, study)
    assert leftovers(plan) == [
        str(path.relative_to(here)) for path in (file, file.with_name("model.safetensors"))
    ]


def test_the_command_asks_first(here: Path, study: str) -> None:
    plan = edited(here, study, "updates: 2", "updates: 3")
    before, found = files(here), set(leftovers(plan))
    for answer in ("n\n", None):
        asked = rankwise(here, "clean", "--study", study, answer=answer)
        assert (
            asked.returncode,
            f"Remove {len(found)} files that {study} does not plan?" in asked.stdout,
        ) == (1, True)
        assert files(here) == before
    done = rankwise(here, "clean", "--study", study, answer="y\n")
    assert f"{len(found)} files removed" in done.stdout, done.stderr
    assert before - files(here) == found
    assert (
        rankwise(here, "clean", "--study", study).stdout
        == f"{study}: no files that it does not plan\n"
    )


def test_a_study_named_like_a_rule_keeps_its_logs(here: Path, study: str) -> None:
    """The paper study's logs of trainings, and all logs of a study with the name `train`, are in logs/train."""
    other = here / "config/train.yaml"
    other.write_text(
        (here / study)
        .read_text()
        .replace("name: mine", "name: train")
        .replace("updates: 2", "updates: 4")
    )
    plan = read_plan(here, "config/train.yaml")
    keep(here, *planned_jobs(here, "config/train.yaml").values())
    settle(plan)
    log = write(here / f"logs/train/train/{CELL}/seed0/0123456789abcdef.log")
    assert leftovers(read_plan(here, study)) == []
    assert leftovers(plan) == [str(log.relative_to(here))]
    shutil.rmtree(here / "results/train")
