"""What the machine lacks is said before the first job, a sentence each, and no result is touched."""

from pathlib import Path

import pytest
import yaml

from helpers.repository import ROOT, run_snakemake
from rankwise.checks import preflight
from rankwise.core.config import ConfigError
from rankwise.core.provenance import file_sha256
from rankwise.study.jobs import planned_jobs, required_jobs, result_jobs
from rankwise.study.plan import Plan, read_plan

GRID = {"models": ["tiny"], "datasets": ["reviews"], "methods": ["full"], "seeds": [0]}
STUDY = {"name": "local", "question": "What is missing?", "device": "cpu", "train": [GRID]}
NO_HUB = "http://127.0.0.1:9"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a dataset's only file, which RANKWISE_DATA names."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [f"word{number}\t{number % 2}\n" for number in range(20)]
    (folder / "train.tsv").write_text("text\tlabel\n" + "".join(rows))
    monkeypatch.setenv("RANKWISE_DATA", str(folder))
    return folder


@pytest.fixture
def entry(data: Path) -> dict:
    """The entry of that dataset."""
    split = {"path": "train.tsv", "sha256": file_sha256(data / "train.tsv")}
    return {
        "task": "classification",
        "files": {"folder": "${RANKWISE_DATA}", "format": "tsv"},
        "splits": {"train": split, "validation": split},
        "report_split": "validation",
        "text": "text",
        "label": "label",
        "classes": ["no", "yes"],
        "max_length_tokens": 16,
        "selection_rows": 2,
    }


@pytest.fixture
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, whatever this one has."""
    (tmp_path / "gpus.json").write_text("[]")
    monkeypatch.setenv("RANKWISE_CARDS", str(tmp_path / "gpus.json"))


def local_plan(project: Path, entry: dict, **changes: object) -> Plan:
    """The plan of a study on the dataset, in a project with an entry of its own."""
    (project / "config").mkdir(exist_ok=True)
    (project / "config/datasets.yaml").write_text(yaml.safe_dump({"reviews": entry}))
    return Plan({**STUDY, **changes}, project, "config/local.yaml")


def problems(plan: Plan) -> str:
    """What is said of all jobs of a plan, apart from the installed packages."""
    return "\n".join(preflight.problems(result_jobs(plan), plan, local=True, own=True))


def test_nothing_is_missing(tmp_path: Path, entry: dict) -> None:
    assert problems(local_plan(tmp_path, entry)) == ""


def test_a_variable_that_is_not_set(
    tmp_path: Path, entry: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANKWISE_DATA")
    assert problems(local_plan(tmp_path, entry)).startswith(
        "config/datasets.yaml: reviews.files.folder: got ${RANKWISE_DATA}, allowed: a folder; "
        "set the environment"
    )


def test_a_missing_folder(tmp_path: Path, entry: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKWISE_DATA", "/nowhere")
    said = problems(local_plan(tmp_path, entry))
    assert "reviews.files.folder: got /nowhere, allowed: a folder that is there" in said


def test_a_missing_file(tmp_path: Path, entry: dict, data: Path) -> None:
    (data / "train.tsv").unlink()
    said = problems(local_plan(tmp_path, entry))
    assert f"reviews.splits.train: got {data / 'train.tsv'}, allowed: a file that is there" in said


def test_another_file(tmp_path: Path, entry: dict, data: Path) -> None:
    (data / "train.tsv").write_text("text\tlabel\nother\t1\n")
    assert "reviews.splits.train: sha256 of" in problems(local_plan(tmp_path, entry))


def test_another_file_is_named_even_if_the_dataset_is_not_prepared_again(
    tmp_path: Path, entry: dict, data: Path
) -> None:
    plan = local_plan(tmp_path, entry)
    trainings = [job for job in result_jobs(plan) if job.rule == "train"]
    assert preflight.lacking("files", trainings, plan) == []
    (data / "train.tsv").write_text("text\tlabel\nother\t1\n")
    sentences = preflight.lacking("files", trainings, plan)
    assert len(sentences) == 2  # both splits are of this file
    assert sentences[0].startswith("config/datasets.yaml: reviews.splits.train: sha256 of")


@pytest.mark.parametrize("column", ["text", "label"])
def test_a_missing_column(tmp_path: Path, entry: dict, column: str) -> None:
    entry[column] = "sentiment"
    said = problems(local_plan(tmp_path, entry))
    assert "has no column 'sentiment', allowed: text, label" in said


def test_rows_are_checked_before_any_job_starts(tmp_path: Path, entry: dict, data: Path) -> None:
    """Every problem of every split, with its row; the same file is both splits here."""
    labels = ["0", "1", "2", "1", "maybe"]
    rows = [f"word{number}\t{label}\n" for number, label in enumerate(labels)]
    (data / "train.tsv").write_text("text\tlabel\n" + "".join(rows))
    del entry["splits"]["train"]["sha256"]
    said = problems(local_plan(tmp_path, entry)).splitlines()
    allowed = "allowed: the names 'no', 'yes' or the numbers 0, 1"
    assert len(said) == 2
    for line, (row, label) in zip(said, [(4, "2"), (6, "maybe")], strict=True):
        place = f"{data / 'train.tsv'}: row {row}: label"
        assert line.startswith(f"{place}: got '{label}' (2 rows in all), {allowed}")


def test_a_split_of_one_class_is_named_before_any_job_starts(
    tmp_path: Path, entry: dict, data: Path
) -> None:
    (data / "train.tsv").write_text("text\tlabel\n" + "word\t1\n" * 20)
    del entry["splits"]["train"]["sha256"]
    said = problems(local_plan(tmp_path, entry)).splitlines()
    start = "config/datasets.yaml: reviews: split"
    assert [line.partition(": got rows of one class only ")[0] for line in said] == [
        f"{start} train",
        f"{start} selection",
        f"{start} validation",
    ]


def test_rows_of_the_files_that_are_there_are_checked(
    tmp_path: Path, entry: dict, data: Path
) -> None:
    (data / "train.tsv").write_text("text\tlabel\nword\t7\n")
    entry["splits"] = {"train": {"path": "train.tsv"}, "validation": {"path": "none.tsv"}}
    said = problems(local_plan(tmp_path, entry)).splitlines()
    assert len(said) == 2
    assert said[0].endswith(f"got {data / 'none.tsv'}, allowed: a file that is there")
    assert said[1].startswith(f"{data / 'train.tsv'}: row 2: label: got '7', allowed")


def test_a_file_whose_columns_cannot_be_read(tmp_path: Path, entry: dict, data: Path) -> None:
    (data / "train.tsv").write_bytes("text\tlabél\na\t1\n".encode("latin-1"))
    del entry["splits"]["train"]["sha256"]
    said = problems(local_plan(tmp_path, entry))
    sentence = f"{data / 'train.tsv'}: row 1: byte 0xE9 at offset 8 is not UTF-8, allowed: UTF-8"
    assert f"reviews.splits.train: {sentence}" in said


def test_too_little_disk(tmp_path: Path, entry: dict) -> None:
    said = problems(local_plan(tmp_path, entry, disk_gib=1_000_000))
    assert said.startswith("config/local.yaml: disk_gib: ")
    assert said.endswith("the study needs 1000000")


@pytest.mark.usefixtures("no_gpu")
def test_no_gpu_for_a_study_that_needs_one(tmp_path: Path, entry: dict) -> None:
    said = problems(local_plan(tmp_path, entry, device="cuda"))
    assert said.startswith(
        "config/local.yaml: device: got cuda, but this machine shows no NVIDIA GPU"
    )


@pytest.mark.usefixtures("no_gpu")
def test_no_gpu_for_profiles_that_are_measured_on_one() -> None:
    """Those that only predict what a GPU would do are not named."""
    said = problems(read_plan(ROOT, "config/gpu.yaml")).splitlines()
    start, end = "config/gpu.yaml: profile.device of ", ": got cuda, but this machine shows"
    kinds = {line.removeprefix(start).partition(end)[0] for line in said}
    assert kinds == {"ledger with measured: true", "forward", "throughput"}


@pytest.mark.usefixtures("no_gpu")
def test_a_limit_of_no_gpus_is_named_as_the_reason(tmp_path: Path, entry: dict) -> None:
    plan = local_plan(tmp_path, entry, device="cuda")
    assert preflight.lacking("gpu", result_jobs(plan), plan, limit=0) == [
        "snakemake: --resources gpu: got 0, allowed: at least 1, for train of config/local.yaml"
    ]


def test_an_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", NO_HUB)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    plan = read_plan(ROOT)
    said = preflight.lacking("hub", result_jobs(plan), plan)
    start = "config/datasets.yaml: sst2.hub: stanfordnlp/sst2 cannot be fetched, "
    assert said[0].startswith(f"{start}{NO_HUB} is unreachable")


@pytest.mark.usefixtures("no_gpu")
def test_profiles_of_the_paper_study_need_neither_gpu_nor_hub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", NO_HUB)
    plan = read_plan(ROOT)
    assert plan.study["device"] == "cuda"
    needed = required_jobs(planned_jobs(plan), "results/figures/memory.png")
    assert {job.rule for job in needed} == {"memory", "collect", "figure"}
    jobs = preflight.jobs_that_write(plan, [job.path for job in needed])
    assert len(jobs) == len(plan.cells("memory"))
    for kind in ("gpu", "hub", "files"):
        assert preflight.lacking(kind, jobs, plan) == []


def test_a_target_without_a_measurement_is_told_from_a_mistyped_one(
    tmp_path: Path, entry: dict
) -> None:
    plan = local_plan(tmp_path, entry)
    preflight.check_targets(["-n", f"{plan.results}/tables/runs.csv"], plan)
    with pytest.raises(ConfigError, match=r"it has none of memory$"):
        preflight.check_targets([f"{plan.results}/figures/memory.png"], plan)
    with pytest.raises(ConfigError, match=rf"nearest: {plan.results}/tables/runs\.csv"):
        preflight.check_targets([f"{plan.results}/tables/rums.csv"], plan)


def test_snakemake_names_all_problems_and_starts_no_job(
    clone: Path, entry: dict, data: Path, tmp_path: Path
) -> None:
    """The real thing: a wrong column, too little disk, and no GPU."""
    entry["label"] = "sentiment"
    study = {**STUDY, "device": "cuda", "disk_gib": 1_000_000}
    (clone / "config/local.yaml").write_text(yaml.safe_dump(study))
    with (clone / "config/datasets.yaml").open("a") as stream:
        stream.write("\n" + yaml.safe_dump({"reviews": entry}))
    figure = clone / "results/local/figures/loss.png"
    figure.parent.mkdir(parents=True)
    figure.write_text("the last good one")
    (tmp_path / "gpus.json").write_text("[]")
    done = run_snakemake(
        clone, "--cores", "1", "--configfile", "config/local.yaml",
        RANKWISE_DATA=str(data), RANKWISE_CARDS=str(tmp_path / "gpus.json"),
    )  # fmt: skip
    assert done.returncode != 0
    for words in ("no column 'sentiment'", "the study needs 1000000", "shows no NVIDIA GPU"):
        assert words in done.stderr
    assert "Execute" not in done.stderr
    assert figure.read_text() == "the last good one"
