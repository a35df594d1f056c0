"""`rankwise verify`: what is not as it was written is named, with the command that mends it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.merging import STUDY, keep, own_store, planned_jobs, small_project
from rankwise.audit.verify import verify
from rankwise.cli.main import main
from rankwise.core import documents, provenance, result
from rankwise.core.paths import CHECKPOINTS
from rankwise.core.state_seal import seal
from rankwise.study import jobs
from rankwise.study.plan import read_plan
from rankwise.study.settle import settle

TRAIN = "train tiny/generated_reviews/lora/r2/seed0"
MODEL = "model tiny"
TABLE = "results/mine/tables/summary.csv"
SNAKEMAKE = ".venv/bin/snakemake {} --configfile config/mine.yaml --cores all"
DIGEST = "0123456789abcdef"
TOKENISED = f"results/.cache/tokenised/{DIGEST}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with every result of its study, a table, a checkpoint and tokenised rows."""
    root = small_project(tmp_path_factory.mktemp("verified") / "here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        keep(root, *planned_jobs(root).values())
        plan = read_plan(root, STUDY)
        settle(plan)
        job = jobs.document(plan, "tables/summary.csv")
        for path in job.outputs:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text("a,b\n1,2\n")
        documents.note(job.request)
        CHECKPOINTS.mkdir()
        sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # of b"hello"
        (CHECKPOINTS / "ab.pt").write_bytes(b"hello" + seal(sha256, 5, "ab.pt"))
        rows = Path(TOKENISED, "examples.arrow")
        rows.parent.mkdir(parents=True)
        rows.write_bytes(b"rows")
        found = {"sha256": provenance.file_sha256(rows)}
        result.write_json(rows.with_name("tokenised.json"), found)
    return root


@pytest.fixture
def here(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = shutil.copytree(whole, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(root)
    return root


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_whole_project_is_as_it_was_written(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = len(planned_jobs(here))
    expected = {"results": count, "documents": 1, "checkpoints": 1, "tokenised": 1}
    assert verify(here, STUDY) == {"study": STUDY, "checked": expected, "problems": []}
    assert main(["verify", "--study", STUDY]) == 0
    assert capsys.readouterr().out.endswith("tokenised rows: all as they were written\n")


def flipped_result(here: Path) -> tuple[str, str]:
    job = planned_jobs(here)[TRAIN]
    file = own_store(here) / job.place
    flip(file)
    return f"{file}: got no whole result: its content was changed", SNAKEMAKE.format(job.path)


def flipped_data(here: Path) -> tuple[str, str]:
    job = planned_jobs(here)[MODEL]
    file = (own_store(here) / job.place).with_name("model.safetensors")
    flip(file)
    heal = ".venv/bin/rankwise verify --heal --study config/mine.yaml; "
    return f"{file}: SHA-256: got ", heal + SNAKEMAKE.format(job.path)


def another_result(here: Path) -> tuple[str, str]:
    every = planned_jobs(here)
    job, other = every[TRAIN], every[TRAIN.replace("lora/r2", "full/r0")]
    link = here / job.path
    link.unlink()
    link.symlink_to(own_store(here) / other.place)
    return f"{link}: it answers request {other.digest}", SNAKEMAKE.format(job.path)


def edited_table(here: Path) -> tuple[str, str]:
    Path(TABLE).write_text("a,b\n1,3\n")
    return f"{TABLE}: sha256 is ", SNAKEMAKE.format(TABLE)


def cut_checkpoint(here: Path) -> tuple[str, str]:
    file = here / CHECKPOINTS / "ab.pt"
    file.write_bytes(file.read_bytes()[1:])
    said = f"{file}: it has 4 bytes of content, allowed: 5, as it was written; the training moves"
    return said, f"rm {file}"


def flipped_rows(here: Path) -> tuple[str, str]:
    file = here / TOKENISED / "examples.arrow"
    flip(file)
    return f"{file}: sha256 is ", f"rm -r {file.parent}"


@pytest.mark.parametrize(
    "spoil",
    [flipped_result, flipped_data, another_result, edited_table, cut_checkpoint, flipped_rows],
)
def test_what_is_not_as_it_was_written_is_named(
    spoil: Callable[[Path], tuple[str, str]], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said, command = spoil(here)
    assert main(["verify", "--study", STUDY, "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["text"].startswith(said)
    assert problem["command"] == command
    assert main(["verify", "--study", STUDY]) == 1
    assert f": 1 problem\n  {problem['text']}\n    {command}\n" in capsys.readouterr().out


def test_planning_sets_a_damaged_input_aside(here: Path) -> None:
    flipped_data(here)
    (missing,) = settle(read_plan(here, STUDY)).missing
    assert missing.digest == planned_jobs(here)[MODEL].digest


def test_heal_sets_damaged_results_aside(here: Path) -> None:
    every = planned_jobs(here)
    flipped_result(here)
    flipped_data(here)
    assert len(verify(here, STUDY, heal=True)["problems"]) == 2
    assert verify(here, STUDY)["problems"] == []
    missing = settle(read_plan(here, STUDY)).missing
    assert {job.digest for job in missing} == {every[TRAIN].digest, every[MODEL].digest}
