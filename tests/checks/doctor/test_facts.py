"""`rankwise doctor`: the facts are this machine's, and the needs are the study's."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import yaml

from helpers.doctoring import DEMO, GIB, PAPER, facts_of, run
from helpers.repository import CLEAN, ROOT
from helpers.stored import store_result
from rankwise.checks import machine
from rankwise.core import environment as installed
from rankwise.core import probe
from rankwise.study.plan import Plan


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
