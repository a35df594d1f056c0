"""What the machine lacks is said before the first job, in one sentence, and no result is touched."""

import shutil
from pathlib import Path

import pytest
import yaml

from helpers.repository import edit, run_snakemake

STUDY = """
name: local
question: What is missing?
device: cpu
train: [{models: [tiny], datasets: [reviews], methods: [full], seeds: [0]}]
"""
ENTRY = """
reviews:
  task: classification
  files: {folder: "${RANKWISE_DATA}", format: tsv}
  splits: {train: {path: train.tsv, sha256: SHA}, validation: {path: train.tsv, sha256: SHA}}
  report_split: validation
  text: text
  label: label
  classes: ["no", "yes"]
  max_length_tokens: 16
  selection_rows: 2
"""


@pytest.fixture
def local(clone: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A clone with a study on files of ours, and the folder of the files."""
    from rankwise.core.provenance import file_sha256

    data = tmp_path / "data"
    data.mkdir()
    (data / "train.tsv").write_text(
        "text\tlabel\n" + "".join(f"word{i}\t{i % 2}\n" for i in range(20))
    )
    (clone / "config/local.yaml").write_text(STUDY)
    entries = clone / "config/datasets.yaml"
    entries.write_text(entries.read_text() + ENTRY.replace("SHA", file_sha256(data / "train.tsv")))
    (clone / "results/figures").mkdir(parents=True)
    (clone / "results/figures/loss.png").write_text("the last good one")
    return clone, data


def refusal(root: Path, *arguments: str, **environment: str) -> str:
    done = run_snakemake(root, "--cores", "1", *arguments, **environment)
    assert done.returncode != 0
    assert "Execute" not in done.stderr, "a job has started"
    assert (root / "results/figures/loss.png").read_text() == "the last good one"
    return done.stderr


def local_refusal(local: tuple[Path, Path], **environment: str) -> str:
    return refusal(
        local[0],
        "--configfile",
        "config/local.yaml",
        **{"RANKWISE_DATA": str(local[1]), **environment},
    )


def test_a_variable_that_is_not_set(local) -> None:
    done = run_snakemake(local[0], "--cores", "1", "--configfile", "config/local.yaml")
    assert (
        "config/datasets.yaml: reviews.files.folder: got ${RANKWISE_DATA}, allowed: a folder; set the environment"
        in done.stderr
    )


def test_a_missing_folder(local) -> None:
    assert "reviews.files.folder: got /nowhere, allowed: a folder that is there" in local_refusal(
        local, RANKWISE_DATA="/nowhere"
    )


def test_a_missing_file(local) -> None:
    (local[1] / "train.tsv").unlink()
    assert "reviews.splits.train: got" in (said := local_refusal(local))
    assert "train.tsv, allowed: a file that is there" in said


def test_another_file(local) -> None:
    (local[1] / "train.tsv").write_text("text\tlabel\nother\t1\n")
    assert "reviews.splits.train: sha256 of" in local_refusal(local)


@pytest.mark.parametrize(
    ("right", "wrong"), [("text: text", "text: sentence"), ("label: label", "label: sentiment")]
)
def test_a_missing_column(local, right: str, wrong: str) -> None:
    entries = local[0] / "config/datasets.yaml"
    head, tail = entries.read_text().split("\nreviews:")
    entries.write_text(head + "\nreviews:" + tail.replace(f"  {right}\n", f"  {wrong}\n"))
    assert f"has no column '{wrong.rsplit(maxsplit=1)[-1]}', allowed: text, label" in local_refusal(
        local
    )


def test_too_little_disk(local) -> None:
    edit(local[0] / "config/local.yaml", "device: cpu", "device: cpu\ndisk_gib: 1000000")
    said = local_refusal(local)
    assert "config/local.yaml: disk_gib: " in said
    assert "the study needs 1000000" in said


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
def test_no_gpu_for_a_study_that_needs_one(local) -> None:
    edit(local[0] / "config/local.yaml", "device: cpu", "device: cuda")
    assert (
        "config/local.yaml: device: got cuda, but this machine shows no NVIDIA GPU"
        in local_refusal(local)
    )


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
def test_no_gpu_for_profiles_that_are_measured_on_one(local) -> None:
    said = refusal(local[0], "--configfile", "config/gpu.yaml")
    for kind in ("ledger with measured: true", "forward", "throughput"):
        assert (
            f"config/gpu.yaml: profile.device of {kind}: got cuda, but this machine shows no NVIDIA GPU"
            in said
        )
    assert "of fits" not in said


def test_an_unreachable_hub(local) -> None:
    said = refusal(local[0], "--forcerun", "prepare_dataset", "--", "results/inputs/datasets/sst2/dataset.json",
                   HF_ENDPOINT="http://127.0.0.1:9")  # fmt: skip
    assert (
        "config/datasets.yaml: sst2.hub: stanfordnlp/sst2 cannot be fetched, http://127.0.0.1:9 is unreachable"
        in said
    )


def test_profiles_of_the_paper_study_need_neither_gpu_nor_hub(clone) -> None:
    done = run_snakemake(
        clone, "results/figures/memory.png", "-n", HF_ENDPOINT="http://127.0.0.1:9"
    )
    assert done.returncode == 0, done.stderr
    assert "prepare_" not in done.stderr
    assert yaml.safe_load((clone / "config/config.yaml").read_text())["device"] == "cuda"
