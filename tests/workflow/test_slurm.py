"""The demo through a real SLURM with nodes, accounting and preemption.

Meanwhile jobs are killed, and nodes are lost and drained. The results must equal those of a run
without SLURM.

The study is the demo with one seed, one rank and a shorter pre-training. It still has every kind of
job, and SLURM adds seconds to each.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from helpers.repository import copy_repository, edit, run_snakemake
from helpers.slurm_cluster import accounts, job_ids, running_cluster
from helpers.slurm_misfortunes import HERE, MISFORTUNES, Submitted, strike
from helpers.stored import made
from rankwise.core import result, sealed
from rankwise.execution import job_memory, slurm_nodes, slurm_request
from rankwise.study.plan import MEASUREMENTS, Plan

pytestmark = pytest.mark.slow

STUDY = "config/few.yaml"
LIMIT_S = 1800
RUN = "results/demo/runs/tiny/generated_reviews/{}/seed0/train.json"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    with running_cluster() as folder:
        yield folder


# The study, with and without SLURM ------------------------------------------------------------------------------------


def few(demo: dict) -> dict:
    """A small part of the demo.

    It has one seed, one rank of each model, and only the profiles that the figures need. A
    training run takes some seconds.
    """
    ranks = {"tiny": [8], "distilbert": [16]}
    train, profile = [], []
    for grid in demo["train"]:
        one_rank = {"ranks": ranks[grid["models"][0]]}
        train.append({**grid, **one_rank, "seeds": [0], "schedule": {"epochs": 12}})
    for grid in demo["profile"]:
        small = {**grid, "ranks": ranks[grid["models"][0]]}
        if grid["measurements"] != ["memory"]:
            small["methods"] = ["lora"]
        profile.append(small)
    return {**demo, "train": train, "profile": profile}


def clone_of(folder: Path) -> Path:
    root = copy_repository(folder)
    demo = yaml.safe_load((root / "config/demo.yaml").read_text())
    (root / STUDY).write_text(yaml.safe_dump(few(demo)))
    edit(root / "config/models.yaml", "schedule: {updates: 900", "schedule: {updates: 20")
    edit(root / "config/datasets.yaml", "rows: {train: 12000", "rows: {train: 1200")
    return root


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which the study was built without SLURM."""
    root = clone_of(tmp_path_factory.mktemp("local") / "clone")
    done = run_snakemake(root, "--configfile", STUDY, "--cores", "2")
    assert done.returncode == 0, done.stderr[-5000:]
    return root


@pytest.fixture(scope="module")
def submitted(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    """The same study through SLURM. Misfortunes strike until each has struck once.

    Each training run requests a GPU, which the nodes only pretend to have.
    """
    run = Submitted(clone_of(tmp_path_factory.mktemp("submitted") / "clone"))
    edit(run.root / "profiles/cluster.yaml", "\naccount:  ", "\naccount: lab ")
    process = run.start(
        cluster, STUDY, "--profile", "profiles/slurm", "--set-resources", "train:gpu=1"
    )
    end = time.monotonic() + LIMIT_S
    try:
        while process.poll() is None and time.monotonic() < end:
            strike(run)
            with contextlib.suppress(OSError):
                run.torch_at_login |= "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()
            time.sleep(0.5)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    run.status = process.wait()
    return run


def test_the_workflow_survives_every_misfortune(submitted: Submitted) -> None:
    assert submitted.status == 0, submitted.log.read_text()[-8000:]
    assert set(submitted.job_by_misfortune) == {name for name, _, _ in MISFORTUNES}


TIMES = ("_s", "_per_second", "_joules", "_watts")


def reproducible(value: object) -> object:
    """A result without times, the machine, and numbers that follow from times.

    `repeats` follows from times, because a timing repeats for a fixed number of seconds.
    """
    if isinstance(value, list):
        return [reproducible(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, item in value.items():
        if key not in ("cost", "environment", "repeats") and not key.endswith(TIMES):
            kept[key] = reproducible(item)
    return kept


def reproducible_text(file: Path) -> str:
    content = json.loads(file.read_text())
    if sealed.CONTENT in content:  # the digest of a result covers its times, too
        content = result.read(file)
    return json.dumps(reproducible(content), sort_keys=True)


def test_every_result_equals_the_local_one(submitted: Submitted, local: Path) -> None:
    found = {path.relative_to(local) for path in (local / "results").rglob("*.json")}
    # What each clone remembers of its own files is no result.
    files = {path for path in found if not any(part.startswith(".") for part in path.parts)}
    plan = Plan(yaml.safe_load((local / STUDY).read_text()), local, STUDY)
    for measurement in ("train", *MEASUREMENTS):
        for cell in plan.cells(measurement):
            assert Path(plan.path(measurement, cell)) in files
    for file in files:
        assert reproducible_text(submitted.root / file) == reproducible_text(local / file), file
    for path in (local / "results").rglob("*.*"):
        if path.suffix in (".png", ".csv", ".html", ".parquet"):
            assert (submitted.root / path.relative_to(local)).stat().st_size


def test_accounting_shows_gpus_memory_and_time(submitted: Submitted) -> None:
    train_jobs = [job for job in accounts() if "rule_train" in job["Comment"]]
    plan = Plan(yaml.safe_load((submitted.root / STUDY).read_text()), submitted.root, STUDY)
    requested = set()
    for cell in plan.cells("train"):
        requested.add((job_memory.training_mib(plan, cell), job_memory.training_min(plan, cell)))
    assert len(train_jobs) >= 4
    for job in train_jobs:
        for kind in ("ReqTRES", "AllocTRES"):
            assert "gres/gpu=1" in job[kind]
            assert "cpu=1" in job[kind]
            memory_mib = int(re.search(r"mem=(\d+)M", job[kind])[1])
            assert (memory_mib, int(job["TimelimitRaw"])) in requested
        assert job["Account"] == "lab"
    assert not any("gpu" in job["AllocTRES"] for job in accounts() if "rule_cpu_" in job["Comment"])


def test_accounting_shows_the_misfortunes(submitted: Submitted) -> None:
    states = {}
    for name, job in submitted.job_by_misfortune.items():
        states[name] = [row["State"] for row in accounts("--duplicates", "-j", job)]
    assert states["cancelled"] == ["CANCELLED by 0"]
    assert states["killed"] == ["FAILED"]
    assert states["drained"] == ["COMPLETED"]
    for name in ("preempted", "lost"):  # SLURM requeues these jobs under the same id
        assert len(states[name]) > 1, states
        assert states[name][-1] == "COMPLETED"


def test_a_preempted_training_run_resumes_from_its_checkpoint(submitted: Submitted) -> None:
    """On any node. A test above compares its result with the local one."""
    assert ": resumed after update " in submitted.preempted_log.read_text()
    assert not list((submitted.root / "results/checkpoints").iterdir())


def test_all_profiles_of_a_cell_are_one_submission(submitted: Submitted) -> None:
    submission = r"has been submitted with SLURM jobid \d+ \(log: \S*/(group_cpu_\S+)/"
    names = re.findall(submission, submitted.log.read_text())
    assert sorted(re.sub(r"_r\d+_.*", "", name) for name in set(names)) == [
        "group_cpu_distilbert_sst2_full",
        "group_cpu_distilbert_sst2_lora",
        "group_cpu_distilbert_sst2_rsvd",
        "group_cpu_tiny_generated_reviews_full",
        "group_cpu_tiny_generated_reviews_head_only",
        "group_cpu_tiny_generated_reviews_lora",
        "group_cpu_tiny_generated_reviews_rsvd",
    ]
    assert "_r8_flops_forward_ledger_memory_throughput" in "".join(names)


def test_the_login_node_does_not_import_torch_and_leaves_no_server_running(
    submitted: Submitted,
) -> None:
    assert not submitted.torch_at_login
    server = b"rankwise.execution.worker_server"
    for process in Path("/proc").glob("[0-9]*"):
        # A process may end, or be one that cannot be read.
        with contextlib.suppress(OSError):
            is_ours = str(submitted.root).encode() in (process / "environ").read_bytes()
            assert not (is_ours and server in (process / "cmdline").read_bytes()), process


def test_the_log_of_a_failed_job_is_kept(submitted: Submitted) -> None:
    jobs_with_logs = [path.stem for path in (submitted.root / "logs/slurm").rglob("*.log")]
    assert submitted.job_by_misfortune["killed"] in jobs_with_logs
    assert len(jobs_with_logs) < 10, "logs of jobs that succeeded are still there"


def test_an_array_requests_gpus_by_gres(cluster: Path, submitted: Submitted) -> None:
    again = Submitted(submitted.root)
    runs = [RUN.format(cell) for cell in ("lora/r8", "full/r0")]
    before = {}
    for path in runs:
        file = made(again.root, path)
        before[path] = result.read(file)
        shutil.rmtree(file.resolve().parent)
    options = ["--profile", "profiles/slurm-gres", "--slurm-array-jobs", "train"]
    options += ["--set-resources", "train:gpu=1"]
    process = again.start(cluster, STUDY, *options, "--", *runs)
    assert process.wait(timeout=180) == 0, again.log.read_text()[-5000:]
    for path, old in before.items():
        new = result.read(made(again.root, path))
        assert new["cost"] != old["cost"]
        assert reproducible(new) == reproducible(old)
    tasks = [job for job in accounts() if re.fullmatch(r"\d+_[12]", job["JobID"])]
    assert [job["State"] for job in tasks] == ["COMPLETED"] * 2
    assert all("gres/gpu=1" in job["AllocTRES"] for job in tasks)


# Refused before submission --------------------------------------------------------------------------------------------


def refusal(root: Path, *arguments: str) -> str:
    """What Snakemake prints when it refuses to run the study. No job may have been submitted."""
    before = job_ids()
    done = run_snakemake(
        root, "--configfile", STUDY, "--profile", "profiles/slurm", *HERE, "--forceall", *arguments
    )
    assert done.returncode != 0
    # Not equal: meanwhile SLURM forgets jobs that have ended.
    assert job_ids() <= before, "a job was submitted"
    return done.stderr


def test_requests_that_no_node_fulfils_are_refused(cluster: Path, local: Path) -> None:
    printed = refusal(
        local, "--set-resources", "train:mem_mb=9000", "train:gpu=1", "prepare_dataset:runtime=3000", "pretrain_model:gpu=2",
        "memory:mem_mb=20000", "--slurm-array-jobs", "prepare_dataset",
    )  # fmt: skip
    for message in (
        "mem_mb of train: got 9000, allowed: at most 8000, the MiB of a node in partition main",
        "mem_mb of profile: got 20000, allowed: at most 8000",
        "runtime of prepare_dataset: got 3000, "
        "allowed: at most 1440, the minutes that a job may take",
        "gpu of pretrain_model: got 2, allowed: at most 1, the GPUs of a node in partition main",
    ):
        assert f"{STUDY}: {message}" in printed


def test_unknown_names_are_refused(cluster: Path, local: Path) -> None:
    file = local / "profiles/cluster.yaml"
    original = file.read_text()
    try:
        file.write_text("partition: mian\ngpu_partition: plain\n")
        printed = refusal(local, "--set-resources", "train:gpu=1")
        allowed = "allowed: main, plain, urgent (nearest: 'main')"
        assert f"profiles/cluster.yaml: partition: got 'mian', {allowed}" in printed
        assert "profiles/cluster.yaml: gpu_partition: got 'plain', allowed: main, urgent" in printed
        file.write_text("gpu_model: a100\n")
        printed = refusal(local, "--set-resources", "train:gpu=1")
        assert "profiles/cluster.yaml: gpu_model: got 'a100', allowed: toy" in printed
    finally:
        file.write_text(original)


def test_a_cluster_that_does_not_answer_is_named(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "slurm.conf"
    wrong_port = "SlurmctldPort=1\nMessageTimeout=2"
    text = (cluster / "slurm.conf").read_text()
    conf.write_text(text.replace("SlurmctldPort=16817", wrong_port))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    message = slurm_nodes.refusals([], STUDY, "squeue", [])[0]
    assert "allowed: a machine with a SLURM cluster that answers; sinfo says: " in message


def test_the_nodes_of_the_cluster_are_read(cluster: Path) -> None:
    assert slurm_nodes.Node("main", True, "n1", 2, 8000, 1440, {"toy": 1}) in slurm_nodes.nodes()
    request = slurm_request.Ask("train", "plain", 1, 500, 10, 0, None)
    assert slurm_nodes.refusals([request], STUDY, "squeue", [Path("/tmp")]) == []
