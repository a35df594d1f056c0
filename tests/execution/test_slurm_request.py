"""Profiles for clusters in dry runs, how lines of sinfo are read, and folders that are not writable.

tests/workflow/test_slurm.py tests the same with a real SLURM.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers.repository import CLEAN, ROOT, edit, run_snakemake
from rankwise.core.config import ConfigError
from rankwise.execution import slurm_nodes, slurm_request

DEMO = ("--configfile", "config/demo.yaml")


def dry_run(root: Path, *arguments: str) -> str:
    done = run_snakemake(root, "-n", "-p", *DEMO, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def resources_of(printed: str, rule: str) -> list[str]:
    """The lines of resources of a rule's jobs, one a job."""
    lines, is_of_rule = [], False
    for line in printed.splitlines():
        text = line.strip()
        if text.startswith("rule "):
            is_of_rule = text == f"rule {rule}:"
        if is_of_rule and text.startswith("resources:"):
            lines.append(line)
            is_of_rule = False
    return lines


# Profiles -------------------------------------------------------------------------------------------------------------


def test_partition_and_account_come_from_one_file(clone: Path) -> None:
    (clone / "profiles/cluster.yaml").write_text(
        "account: lab\npartition: cpus\ngpu_partition: gpus\ngpu_model: h100\n"
    )
    printed = dry_run(clone, "--profile", "profiles/slurm", "--set-resources", "train:gpu=1")
    train_lines = resources_of(printed, "train")
    assert len(train_lines) == 18
    for line in train_lines:
        assert "slurm_account=lab" in line
        assert "slurm_partition=gpus" in line
        assert "gpu=1" in line
        assert "gpu_model=h100" in line
        assert "gres=" not in line
    for line in resources_of(printed, "memory"):
        assert "slurm_partition=cpus" in line
        assert "gpu_model" not in line


def test_gres_replaces_gpu(clone: Path) -> None:
    (clone / "profiles/cluster.yaml").write_text("gpu_model: h100\n")
    printed = dry_run(clone, "--profile", "profiles/slurm-gres", "--set-resources", "train:gpu=1")
    for line in resources_of(printed, "train"):
        assert "gres=gpu:h100:1" in line
        assert "gpu=0" in line
        assert "gpu_model" not in line
    assert not any("gres" in line for line in resources_of(printed, "memory"))


def test_a_misspelt_key_is_named(clone: Path) -> None:
    edit(clone / "profiles/cluster.yaml", "account:", "acount:")
    done = run_snakemake(clone, "-n", *DEMO, "--profile", "profiles/slurm")
    assert done.returncode != 0
    assert "profiles/cluster.yaml: top level: got 'acount', allowed: account, " in done.stderr
    assert "(nearest: 'account')" in done.stderr


def test_an_unknown_style_is_named() -> None:
    message = "--config cluster: got 'gpu', allowed: gpus, gres, kubernetes"
    with pytest.raises(ConfigError, match=message):
        slurm_request.settings("gpu", ROOT)


def test_local_runs_ignore_the_cluster_file(clone: Path) -> None:
    (clone / "profiles/cluster.yaml").write_text("partition: cpus\n")
    printed = dry_run(clone)
    assert "slurm_" not in printed
    assert "turn=" not in printed


def test_the_two_profiles_differ_only_in_how_they_request_gpus() -> None:
    gpus, gres = (
        yaml.safe_load((ROOT / f"profiles/{name}/profile.yaml").read_text())
        for name in ("slurm", "slurm-gres")
    )
    assert gpus.pop("config") == ["cluster=gpus"]
    assert gres.pop("config") == ["cluster=gres"]
    assert gpus == gres


def test_planning_at_a_login_node_does_not_import_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "snakemake", "-n", *DEMO]
    command += ["--profile", "profiles/slurm"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=CLEAN, check=False)
    assert done.returncode == 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip() for line in lines}
    assert "snakemake" in imported
    assert not imported & {"torch", "transformers", "peft", "accelerate"}


# Requests and nodes ---------------------------------------------------------------------------------------------------

LINES = """\
main*|n1|64|512000|2-00:00:00|gpu:a100:4(S:0-1),gpu:1g.10gb:2(S:0,1)
main*|n2|64|1024000+|2-00:00:00|(null)
old|n3|8|32000|30:00|gpu:2
any|n4|8|32000|infinite|gpu,gpu:2080ti:8,nvme:1"""
NODES = [slurm_nodes.read_node(line) for line in LINES.splitlines()]
JOB = slurm_request.Ask("train", None, 1, 1000, 60, 0, None)


def test_lines_of_sinfo_are_read() -> None:
    expected = [
        slurm_nodes.Node("main", True, "n1", 64, 512000, 2880, {"a100": 4, "1g.10gb": 2}),
        slurm_nodes.Node("main", True, "n2", 64, 1024000, 2880, {}),
        slurm_nodes.Node("old", False, "n3", 8, 32000, 30, {"": 2}),
        slurm_nodes.Node("any", False, "n4", 8, 32000, None, {"": 1, "2080ti": 8}),
    ]
    assert expected == NODES


# Case -> (changes of JOB, the start of the message; None: the job fits).
CASES = {
    "fits": ({}, None),
    "either partition": ({"partition": "old,any", "minutes": 9000}, None),
    "unknown partition": ({"partition": "mian"}, "profiles/cluster.yaml: partition: got 'mian', allowed: any, main, old (nearest: 'main')"),
    "memory": ({"memory_mib": 2000000}, "s.yaml: mem_mb of train: got 2000000, allowed: at most 1024000, the MiB of a node in partition main"),
    "memory beside a GPU": ({"memory_mib": 600000, "gpus": 1}, "s.yaml: mem_mb of train: got 600000, allowed: at most 512000, the MiB of"),
    "time": ({"partition": "old"}, "s.yaml: runtime of train: got 60, allowed: at most 30, the minutes that a job may take in partition old"),
    "no limit of time": ({"partition": "any", "minutes": 100000}, None),
    "CPUs": ({"cpus": 65}, "s.yaml: threads of train: got 65, allowed: at most 64, the CPUs of a node in partition main"),
    "GPUs": ({"gpus": 5, "model": "a100"}, "s.yaml: gpu of train: got 5, allowed: at most 4, the GPUs of a node in partition main"),
    "GPUs of any type": ({"gpus": 6}, None),
    "wrong GPU": ({"gpus": 1, "model": "h100"}, "profiles/cluster.yaml: gpu_model: got 'h100', allowed: 1g.10gb, a100"),
    "right GPU": ({"gpus": 8, "model": "2080ti", "partition": "any"}, None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_request_that_no_node_fulfils_is_explained_once(case: str) -> None:
    changes, message = CASES[case]
    job = JOB._replace(**changes)
    problems = slurm_nodes.problems([job, job], NODES, "s.yaml")
    if message is None:
        assert problems == []
    else:
        assert len(problems) == 1
        assert problems[0].startswith(message)


def test_a_cluster_without_gpus_or_default_partition() -> None:
    plain = [NODES[1]._replace(default=False)]
    gpu_job = JOB._replace(partition="main", gpus=1)
    message = slurm_nodes.problems([gpu_job], plain, "s.yaml")[0]
    assert "gpu_partition: got 'main', allowed: none, for no node" in message
    message = slurm_nodes.problems([JOB], plain, "s.yaml")[0]
    assert "partition: got None, allowed: main" in message


def test_a_request_is_read_in_either_style() -> None:
    shared = {
        "mem_mb": 10,
        "runtime": 5,
        "_cores": 2,
        "disk_mb": "<TBD>",
        "slurm_partition": "main",
    }
    expected = slurm_request.Ask("train", "main", 2, 10, 5, 2, "a100")
    assert slurm_request.ask("train", {**shared, "gpu": 2, "gpu_model": "a100"}) == expected
    assert slurm_request.ask("train", {**shared, "gres": "gpu:a100:2"}) == expected
    unknown = slurm_request.Ask("train", None, 1, None, None, 0, None)
    assert slurm_request.ask("train", {"mem_mb": "<TBD>"}) == unknown


def test_options_that_snakemake_would_silently_reduce_are_refused() -> None:
    settings = slurm_request.settings("gpus", ROOT)
    assert slurm_request.options(settings, "s.yaml", 4, 4, None) == []
    message = slurm_request.options(settings, "s.yaml", 8, 4, None)[0]
    assert "s.yaml: cpu_threads: got 8, allowed: at most 4" in message
    assert "--resources gpu: got 1" in slurm_request.options(settings, "s.yaml", 4, 4, 1)[0]
    message = slurm_request.options(None, "s.yaml", 4, None, None)[0]
    assert "--config cluster: got None, allowed: gpus, gres, kubernetes" in message


def test_arrays_of_jobs_with_different_requests_are_refused() -> None:
    larger = JOB._replace(memory_mib=3000)
    problems = slurm_request.unlike([JOB, larger, larger], "memory, train")
    assert "--slurm-array-jobs: got 'train'" in problems[0]
    assert "memory_mib from 1000 to 3000" in problems[0]
    assert slurm_request.unlike([JOB, JOB], "all") == []
    assert slurm_request.unlike([JOB, larger], "memory") == []
    assert slurm_request.unlike([JOB, larger], None) == []


# Folders --------------------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    assert slurm_nodes.unwritable([tmp_path, tmp_path]) == []
    missing = tmp_path / "nowhere"
    message = slurm_nodes.unwritable([missing])[0]
    assert f"{missing}: got a folder that cannot be written" in message


def test_a_disk_that_is_full_or_read_only(mounted: tuple[str, Path]) -> None:
    option, folder = mounted
    why = {"ro": "Read-only file system", "size=64k": "No space left on device"}[option]
    message = (
        f"{folder}: got a folder that cannot be written ({why}), allowed: one with room for files"
    )
    assert slurm_nodes.unwritable([folder]) == [message]
