"""`rankwise doctor` names what is missing with the thing to do."""

import shutil
from pathlib import Path

import pytest
import yaml

from helpers.doctoring import DEMO, GIB, NO_GPU, OFFLINE, PAPER, facts_of, run, said
from helpers.repository import ROOT, edit
from rankwise.audit.rerun_plan import study_jobs
from rankwise.checks import doctor, machine, missing
from rankwise.core.config import ConfigError
from rankwise.study.plan import Plan


def test_the_paper_study_lacks_a_gpu_and_the_hub(tools) -> None:
    found = facts_of(
        ROOT,
        PAPER,
        1,
        PATH=tools(),
        HF_ENDPOINT="http://127.0.0.1:9",
        RANKWISE_ENVIRONMENT="recorded",
        **NO_GPU,
    )
    gpu = next(one for one in found["missing"] if "NVIDIA" in one["what"])
    assert gpu["what"].startswith(
        f"{PAPER}: device: got cuda, but this machine shows no NVIDIA GPU"
    )
    assert gpu["do"].startswith("run it on a machine with an NVIDIA GPU")
    assert gpu["here"]
    assert (
        "config/models.yaml: gpt2.hub: openai-community/gpt2 cannot be fetched, http://127.0.0.1:9 is unreachable"
        in said(found)
    )
    assert (found["runs"], found["command"], found["cluster"]) == (None, None, None)
    done = run(ROOT, PATH=tools(), **OFFLINE, **NO_GPU)  # the default study, as text
    assert done.stdout.endswith(f"\n{PAPER} cannot run here.\n")
    assert done.returncode == 1


def test_packages_that_differ_are_named_with_their_lock(clone: Path) -> None:
    edit(clone / "envs/report.lock", "matplotlib==", "matplotlib==0")
    found = facts_of(clone, DEMO, 1)
    assert [one["what"].split(": ")[:2] for one in found["missing"]] == [
        ["envs/report.lock", "1 installed otherwise than locked"]
    ]
    assert found["machine"]["packages"]["report.lock"]["first"].startswith("matplotlib ")


def test_missing_files_are_named(clone: Path, tmp_path: Path) -> None:
    study = {
        "name": "local", "question": "What is missing?", "device": "cpu",
        "train": [{"models": ["tiny"], "datasets": ["reviews"], "methods": ["full"], "seeds": [0]}],
    }  # fmt: skip
    entry = {
        "task": "classification", "files": {"folder": "${RANKWISE_DATA}", "format": "tsv"},
        "splits": {name: {"path": "a.tsv", "sha256": "0" * 64} for name in ("train", "validation")},
        "report_split": "validation", "text": "text", "label": "label", "classes": ["no", "yes"],
        "max_length_tokens": 16, "selection_rows": 2,
    }  # fmt: skip
    (clone / "config/local.yaml").write_text(yaml.safe_dump(study))
    with (clone / "config/datasets.yaml").open("a") as stream:
        stream.write("\n" + yaml.safe_dump({"reviews": entry}))
    unset, empty = (
        facts_of(clone, "config/local.yaml", 1),
        facts_of(clone, "config/local.yaml", 1, RANKWISE_DATA=str(tmp_path)),
    )
    assert unset["needs"]["folders"] == {"dataset reviews": "${RANKWISE_DATA}"}
    assert (
        "reviews.files.folder: got ${RANKWISE_DATA}, allowed: a folder; set the environment variable"
        in said(unset)
    )
    assert f"reviews.splits.train: got {tmp_path / 'a.tsv'}, allowed: a file that is there" in said(
        empty
    )
    assert {one["do"] for one in empty["missing"]} == {"put the files there, or correct the entry"}


def test_every_problem_of_every_dataset_is_listed(clone: Path, tmp_path: Path) -> None:
    """A job stops at the first, so a user would mend them one by one."""
    files = {
        "one/train.csv": "text,label\na,no\nb,perhaps\nc,yes\nd,never\n",
        "one/test.csv": "text,label\na,no\nb,yes\nc,\n",
        "two/train.csv": "text,label\n" + "a,0\n" * 9,
        "three/train.csv": "text,label\na,0\n,1\nb\nc,yes\n",
        "three/test.csv": "text,label\na,0\nb,1\n",
        "two/test.csv": "text,label\na,0\nb,1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    entries = {}
    for name in ("one", "two", "three"):
        entries[name] = {
            "task": "classification", "files": {"folder": str(tmp_path / name), "format": "csv"},
            "splits": {split: {"path": f"{split}.csv"} for split in ("train", "test")},
            "report_split": "test", "text": "text", "label": "label", "classes": ["no", "yes"],
            "max_length_tokens": 16, "selection_rows": 2,
        }  # fmt: skip
    study = {
        "name": "local", "question": "What is wrong?", "device": "cpu",
        "train": [{"models": ["tiny"], "datasets": ["one", "two", "three"], "methods": ["full"], "seeds": [0]}],
    }  # fmt: skip
    (clone / "config/local.yaml").write_text(yaml.safe_dump(study))
    with (clone / "config/datasets.yaml").open("a") as stream:
        stream.write("\n" + yaml.safe_dump(entries))
    found = facts_of(clone, "config/local.yaml", 1, **OFFLINE)
    text = said(found)
    for part in (
        f"{tmp_path}/three/train.csv: row 3: column 'text' is ''",
        f"{tmp_path}/three/train.csv: row 4: number of cells: got 1",
        f"{tmp_path}/three/train.csv: row 2: label: got '0', a number, but 'yes', a name, in "
        f"{tmp_path}/three/train.csv: row 5",
        f"{tmp_path}/one/train.csv: row 3: label: got 'perhaps'",
        f"{tmp_path}/one/train.csv: row 5: label: got 'never'",
        f"{tmp_path}/one/test.csv: row 4: label: got nothing",
        "two: split train: got rows of one class only (7 of 'no', 0 of 'yes')",
        "two: split selection: got rows of one class only (2 of 'no', 0 of 'yes')",
    ):
        assert part in text, text
    assert {one["do"] for one in found["missing"]} == {"correct the rows, or the entry"}


@pytest.mark.parametrize(("study", "sentence"), [
    ("config/none.yaml", "config/none.yaml: file: got 'nothing', allowed: a YAML file"),
    ("config/models.yaml", "config/models.yaml: top level: got "),
])  # fmt: skip
def test_a_bad_study_is_one_sentence(study: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        doctor.examine(ROOT, study)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_a_disk_of_the_clone_that_cannot_be_written(clone: Path, mounted: tuple[str, Path]) -> None:
    shutil.rmtree(clone / "results", ignore_errors=True)
    (clone / "results").symlink_to(mounted[1])
    found = facts_of(clone, DEMO, 1)
    assert f"{clone / 'results'}: got a folder that cannot be written" in said(found)
    assert not found["missing"][0]["here"]  # it would stop a cluster, too


def test_too_little_disk_and_no_scratch(clone: Path) -> None:
    edit(clone / DEMO, "disk_gib: 1", "disk_gib: 1000000")
    found = facts_of(clone, DEMO, 1, TMPDIR="/proc")
    assert [one["here"] for one in found["missing"]] == [False, True]
    assert "the study needs 1000000" in found["missing"][0]["what"]
    assert found["missing"][1]["what"].startswith(
        "TMPDIR: /proc: got a folder that cannot be written"
    )


def test_memory_below_that_of_the_largest_job(plan: Plan) -> None:
    facts = machine.look(ROOT)
    needs = doctor.needed(plan, known := list(study_jobs(plan).values()), known)
    assert missing.missing(plan, [], facts, needs) == []
    facts["memory"]["usable_bytes"] = 4 * GIB
    (one,) = missing.missing(plan, [], facts, needs)
    assert (
        one["what"]
        == f"{DEMO}: MiB of {needs['memory_of']}: got {needs['memory_mib']}, allowed: at most 4096, this machine's"
    )
    assert "snakemake predictions" in one["do"]
    facts["memory"]["usable_bytes"] = 9 * GIB
    facts["processors"]["usable"] = 64
    assert "`--resources mem_mb=9216` starts no more than fit" in missing.notes(facts, needs)[-1]
