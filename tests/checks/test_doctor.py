"""`rankwise doctor`: the facts are this machine's, the needs are the study's, and what is missing is named with the thing to do.

Programs that are asked (drivers, engines, sinfo) are stood in for by others of the same name on PATH, for their output is all
that is known of them; everything else is real.
"""

import functools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from helpers.programs import HANG, stand_ins
from helpers.repository import CLEAN, ROOT, edit
from helpers.stored import store_result
from rankwise.audit.rerun_plan import study_jobs
from rankwise.checks import doctor, machine, missing
from rankwise.cli import doctor_text
from rankwise.core import environment as installed
from rankwise.core import probe
from rankwise.core.config import ConfigError
from rankwise.study.jobs import cell_jobs
from rankwise.study.plan import Plan

DEMO, PAPER = "config/demo.yaml", "config/config.yaml"
GIB = 2**30
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "RANKWISE_ENVIRONMENT": "recorded",
}  # leave the hub and the locks out of a case
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}  # where this machine has one


def run(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """The command, in a process of its own."""
    command = [sys.executable, "-m", "rankwise.cli.main", "doctor", *arguments]
    clean = {name: value for name, value in CLEAN.items() if name != "CUDA_VISIBLE_DEVICES"}
    own = {**clean, "PYTHONPATH": str(root / "src"), **environment}
    return subprocess.run(
        command, cwd=root, env=own, capture_output=True, text=True, timeout=300, check=False
    )


def facts_of(root: Path, study: str, code: int, **environment: str) -> dict:
    """What the doctor finds with these environment variables; `code` is the command's exit status."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name not in CLEAN or name == "CUDA_VISIBLE_DEVICES":
                patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        found = json.loads(json.dumps(doctor.examine(root, study)))
    assert int(found["runs"] is None) == code, found["missing"]
    return found


def said(found: dict) -> str:
    return "\n".join(one["what"] for one in found["missing"])


@pytest.fixture
def tools(tmp_path: Path) -> Callable[..., str]:
    """A function that makes the only programs there are, from what each does; it returns the PATH."""
    return functools.partial(stand_ins, tmp_path / "bin")


# This machine, as it is ---------------------------------------------------------------------------


def test_the_demo_can_run_here_and_the_facts_are_this_machines() -> None:
    done = run(ROOT, "--study", DEMO, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    facts = found["machine"]
    assert (found["runs"], found["missing"], found["command"]) == (
        "here",
        [],
        f"snakemake --configfile {DEMO}",
    )
    assert facts["system"]["python"] == platform.python_version()
    assert facts["processors"]["count"] == os.cpu_count()
    assert (
        0
        < facts["memory"]["available_bytes"]
        <= facts["memory"]["usable_bytes"]
        <= psutil.virtual_memory().total
    )
    # Where results lie; the clone itself if it has none yet.
    store = ROOT / "results/store"
    existing = next(folder for folder in (store, store.parent, ROOT) if folder.exists())
    assert facts["clone"]["path"] == str(existing)
    assert 0 < facts["clone"]["free_bytes"] < shutil.disk_usage(ROOT).total
    assert {name: one["differ"] for name, one in facts["packages"].items()} == {
        lock.name: len(installed.differences(lock)) for lock in (ROOT / "envs").glob("*.lock")
    }
    assert {
        name for name, one in facts["engines"].items() if one.get("trouble") != probe.ABSENT
    } == {name for name in machine.ENGINES if shutil.which(name)}


def test_torchs_build_is_read_without_importing_it() -> None:
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "rankwise.cli.main",
        "doctor",
        "--study",
        DEMO,
        "--json",
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**CLEAN, "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=False,
    )
    imported = {
        line.rpartition("|")[2].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "rankwise.checks.doctor" in imported
    assert not imported & {"torch", "transformers", "numpy", "pandas"}
    told = "import torch; print(torch.__version__, torch.version.cuda)"
    torch = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True
    ).stdout.split()
    assert [str(value) for value in json.loads(done.stdout)["machine"]["torch"].values()] == torch


def test_the_text_has_the_same_facts_in_three_sections(tools, clone: Path) -> None:
    path = {
        "PATH": tools(docker="echo 29.0.1", podman="echo cannot >&2; exit 1"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    found, text = facts_of(clone, DEMO, 0, **path), run(clone, "--study", DEMO, **path).stdout
    titles = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert titles == [
        "This machine",
        f"What {DEMO} needs",
        "What is missing",
        f"{DEMO} can run here: {found['command']}",
    ]
    facts, needs = found["machine"], found["needs"]
    rows = [line for line in text.split("What is missing")[0].splitlines() if line.startswith("  ")]
    assert {
        re.match(r"  (\S+ ?\S*|) *", line).end() for line in rows if line.startswith("   ")
    } == {14}  # one column of values
    assert f"  memory      {facts['memory']['usable_bytes'] / GIB:.1f} GiB" in rows[2]
    for part in (
        facts["system"]["platform"],
        facts["torch"]["version"],
        "docker 29.0.1",
        "podman says: cannot",
        str(clone),
    ):
        assert part in text
    assert "not here: buildah, apptainer, singularity" in text
    assert f"{needs['results']} planned; to be made: {needs['jobs']['train']} train" in text
    assert f"{needs['memory_mib'] / 1024:.1f} GiB for {needs['memory_of']}" in text
    assert text.split("What is missing\n")[1].startswith("  nothing\n")


def test_needs_are_the_studys(plan: Plan) -> None:
    found = facts_of(ROOT, PAPER, 1, PATH="/nowhere", HF_ENDPOINT="http://127.0.0.1:9")
    paper = Plan(yaml.safe_load((ROOT / PAPER).read_text()), ROOT, PAPER)
    trained = len(paper.cells("train"))
    there = sum((ROOT / paper.path("train", cell)).is_file() for cell in paper.cells("train"))
    needs = found["needs"]
    assert (
        needs["gpu_jobs"]
        == needs["jobs"]["train"]
        == needs["trainings_not_predicted"]
        == trained - there
    )
    assert needs["disk_gib"] == paper.study["disk_gib"]
    assert needs["locks"] == ["envs/gpu.lock", "envs/cpu.lock", "envs/report.lock"]
    assert needs["hub"]["model gpt2"] == "openai-community/gpt2@607a30d783df"


# What is missing ----------------------------------------------------------------------------------


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


# GPUs ----------------------------------------------------------------------------------------------

SMI = """case "$1" in
--query-gpu=driver_version) echo {driver};;
--query-gpu=uuid,compute_cap) echo "GPU-aa-1, {first}"; echo "GPU-bb-2, 9.0";;
--query-gpu=uuid,name,memory.total) echo "GPU-aa-1, Tesla T4, 15360"; echo "GPU-bb-2, NVIDIA H100, 81559";;
--query-gpu=uuid,memory.used) echo "GPU-aa-1, 0"; echo "GPU-bb-2, 4096";;
esac"""
PEAK = 30 * GIB


@pytest.fixture
def predicted(clone: Path) -> Path:
    """A clone in which the trainings of the paper study are predicted: each needs 30 GiB."""
    paper = Plan(yaml.safe_load((clone / PAPER).read_text()), clone, PAPER)
    metrics = {"peak_bytes": PEAK, "updates": 1000, "update_flops": 1e12}
    for job in cell_jobs(paper, "predict"):
        store_result(clone, job.request, lambda _: {"metrics": metrics})
    return clone


def test_a_card_too_small_is_named_with_what_is_needed(
    predicted: Path, tools, tmp_path: Path
) -> None:
    path = tools(nvidia_smi=SMI.format(driver="580.65.06", first="7.5"))
    found = facts_of(
        predicted, PAPER, 1, PATH=path, RANKWISE_LEASES=str(tmp_path / "leases"), **OFFLINE
    )
    small = next(one for one in found["missing"] if "Tesla T4" in one["what"])
    assert small["what"].startswith(
        "GPU-aa-1: Tesla T4: got '15.0 GiB', allowed: at least 30.6 GiB, the predicted peak of train "
    )
    assert small["do"] == "keep to the others: CUDA_VISIBLE_DEVICES=GPU-bb-2"
    assert found["needs"]["trainings_not_predicted"] == 0
    assert found["needs"]["gpu_hours"] > 0
    assert "NVIDIA H100, 79.6 GiB): others have 4.0 GiB there" in "\n".join(found["notes"])
    kept = facts_of(
        predicted, PAPER, int(found["machine"]["torch"]["cuda"] is None), PATH=path, CUDA_VISIBLE_DEVICES="GPU-bb-2",
        RANKWISE_LEASES=str(tmp_path / "leases"), **OFFLINE,
    )  # fmt: skip
    assert "Tesla" not in said(kept)


@pytest.mark.parametrize(("driver", "first", "sentence"), [
    ("580.65.06", "7.5", None),
    ("570.12", "7.5", "nvidia-smi: driver: got '570.12', allowed: at least 580, for CUDA 13.0"),
    ("580.65.06", "6.1", "GPU-aa-1 (Tesla T4, 15.0 GiB): compute capability: got 6.1, allowed: at least 7.5, for CUDA 13.0"),
])  # fmt: skip
def test_a_driver_or_a_card_too_old_for_torchs_cuda(
    driver, first, sentence, tools, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("PATH", tools(nvidia_smi=SMI.format(driver=driver, first=first)))
    monkeypatch.setenv("RANKWISE_LEASES", str(tmp_path / "leases"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    facts = machine.look(ROOT)
    plan = Plan(yaml.safe_load((ROOT / PAPER).read_text()), ROOT, PAPER)
    needs = doctor.needed(plan, known := list(study_jobs(plan).values()), known)
    facts["torch"] = {"version": "2.13.0", "cuda": "13.0"}
    found = [one["what"] for one in missing.missing(plan, [], facts, needs) if one["here"]]
    assert found == ([sentence] if sentence else [])
    facts["torch"] = {"version": "2.13.0+cpu", "cuda": None}
    found = [one["what"] for one in missing.missing(plan, [], facts, needs) if one["here"]]
    allowed = f"a build with CUDA, for {needs['gpu_jobs']} jobs take a GPU"
    assert found[0] == f"envs/gpu.lock: torch: got '2.13.0+cpu', allowed: {allowed}"


def test_a_wrong_variable_is_the_reason(tools) -> None:
    path = tools(nvidia_smi=SMI.format(driver="580.65.06", first="7.5"))
    found = facts_of(ROOT, PAPER, 1, PATH=path, CUDA_VISIBLE_DEVICES="7", **OFFLINE)
    assert (
        "environment: CUDA_VISIBLE_DEVICES: got '7', allowed: 0 or GPU-aa-1, 1 or GPU-bb-2"
        in said(found)
    )


# Programs that hang or fail -----------------------------------------------------------------------


def test_what_hangs_is_said_to_and_nothing_waits_for_it(tools, monkeypatch) -> None:
    names = (
        "docker",
        "podman",
        "buildah",
        "apptainer",
        "singularity",
        "sinfo",
        "kubectl",
        "nvidia_smi",
    )
    path = tools(**dict.fromkeys(names, HANG))
    monkeypatch.setitem(probe.run.__kwdefaults__, "seconds", 2)
    found = facts_of(ROOT, PAPER, 1, PATH=path, **OFFLINE)
    silent = "gives no answer in 2 s"
    assert {one["trouble"] for one in found["machine"]["engines"].values()} == {silent}
    for fact, program in {"cards": "nvidia-smi", "slurm": "sinfo", "kubernetes": "kubectl"}.items():
        assert found["machine"][fact]["trouble"] == f"{program} {silent}"
    gpu = next(one for one in found["missing"] if "NVIDIA" in one["what"])
    assert gpu["do"].startswith(
        f"mend the driver first, if there is a GPU: nvidia-smi {silent}; else run it on a machine"
    )


# A login node -------------------------------------------------------------------------------------

SINFO = 'echo "main*|n1|64|256000|2-00:00:00|(null)"; echo "main*|n2|64|256000|2-00:00:00|(null)"; echo "{cards}"'


def test_a_cluster_that_could_run_it_is_named(clone: Path, tools) -> None:
    path = tools(sinfo=SINFO.format(cards="cards|n3|64|512000|2-00:00:00|gpu:h100:4"))
    edit(clone / "profiles/cluster.yaml", "gpu_partition:    #", "gpu_partition: cards    #")
    found = facts_of(clone, PAPER, 0, PATH=path, **OFFLINE, **NO_GPU)
    assert found["cluster"] == {"problems": [], "gpu": ["cards"], "cpu": ["main", "cards"]}
    assert found["command"] == "snakemake --profile profiles/slurm"
    assert [node["count"] for node in found["machine"]["slurm"]["nodes"]] == [2, 1]
    text = doctor_text.text(found)
    assert "main (default): 2 nodes of 64 CPUs, 250.0 GiB, no GPU; at most 2 days" in text
    assert "- on this machine alone: config/config.yaml: device: got cuda" in text
    assert "- SLURM, jobs with a GPU: partition cards" in text
    assert text.endswith(
        "config/config.yaml can run on this cluster: snakemake --profile profiles/slurm"
    )


def test_a_cluster_that_could_not_is_told_why(clone: Path, tools) -> None:
    path = tools(sinfo=SINFO.format(cards="cards|n3|64|2000|2-00:00:00|gpu:h100:4"))
    found = facts_of(clone, PAPER, 1, PATH=path, **OFFLINE, **NO_GPU)
    assert found["cluster"]["gpu"] == []
    assert (
        "profiles/cluster.yaml: gpu_partition: got 'main', allowed: cards"
        in found["cluster"]["problems"]
    )
    edit(clone / "profiles/cluster.yaml", "gpu_partition:    #", "gpu_partition: cards    #")
    found = facts_of(clone, PAPER, 1, PATH=path, **OFFLINE, **NO_GPU)
    assert found["runs"] is None
    assert "MiB of a node in partition cards" in found["cluster"]["problems"][0]


# What is there already ----------------------------------------------------------------------------


def test_what_is_there_needs_nothing(clone: Path) -> None:
    """One training on a dataset of the hub: with its result there, neither hub nor GPU is asked for."""
    grid = {"models": ["distilbert"], "datasets": ["sst2"], "methods": ["lora"], "seeds": [0]}
    study = {"name": "one", "question": "?", "device": "cpu", "train": [grid]}
    (clone / "config/one.yaml").write_text(yaml.safe_dump(study))
    plan, nowhere = (
        Plan(study, clone, "config/one.yaml"),
        {"HF_ENDPOINT": "http://127.0.0.1:9", "PATH": "/nowhere"},
    )
    (cell,) = plan.cells("train")
    assert (
        len(facts_of(clone, "config/one.yaml", 1, **nowhere)["missing"]) == 2
    )  # dataset and model
    stored = store_result(clone, plan.request("train", cell), lambda _: {})
    found = facts_of(clone, "config/one.yaml", 0, **nowhere)
    assert (found["needs"]["jobs"], found["needs"]["hub"]) == ({}, {})
    stored.unlink()
    assert facts_of(clone, "config/one.yaml", 1, **nowhere)["needs"]["jobs"]["train"] == 1
