"""The demo through a real SLURM with nodes, accounting and preemption.

Meanwhile jobs are killed, and nodes are lost and drained. The results must equal those of a run
without SLURM.

The cluster runs on this machine as root (tests/slurm/up.sh). Debian's packages of SLURM are
installed if they are missing. The study is the demo with one seed, one rank and a shorter
pre-training. It still has every kind of job, and SLURM adds seconds to each.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from helpers.repository import CLEAN, ROOT, copy_repository, edit, run_snakemake
from helpers.stored import made
from rankwise.core import result, sealed
from rankwise.execution import job_memory, slurm_nodes, slurm_request
from rankwise.study.plan import MEASUREMENTS, Plan

pytestmark = pytest.mark.slow

PACKAGES = [
    "slurm-wlm",
    "slurmctld",
    "slurmd",
    "slurm-client",
    "slurm-wlm-basic-plugins",
    "slurmdbd",
    "munge",
    "mariadb-server",
]
PROGRAMS = ["slurmctld", "slurmd", "sinfo", "slurmdbd", "munged", "mariadbd"]
STUDY = "config/few.yaml"
# Options that fit a small cluster: two CPUs a node, a local disk, and jobs that take seconds.
HERE = ["--cores", "2", "--latency-wait", "5", "--slurm-init-seconds-before-status-checks", "2"]
LIMIT_S = 1800
RUN = "results/demo/runs/tiny/generated_reviews/{}/seed0/train.json"


# The cluster ----------------------------------------------------------------------------------------------------------


def install() -> str | None:
    """Install the packages of SLURM. Return why that failed, or None."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    update = ["apt-get", "update", "-qq"]
    install_packages = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
    for command in (update, install_packages):
        done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{' '.join(command[:2])}: {done.stderr[-500:]}"
    return None


def is_running(program: str) -> bool:
    done = subprocess.run(["pgrep", "-x", program], capture_output=True, check=False)
    return done.returncode == 0


def why_no_cluster() -> str | None:
    """Why no cluster can run here, or None. Installs missing packages."""
    if os.geteuid() != 0:
        return "SLURM's daemons need root"
    if not all(map(shutil.which, PROGRAMS)):
        failure = install()
        if failure:
            return failure
    conf = Path("/etc/slurm/slurm.conf")
    if conf.is_symlink() and not is_running("slurmctld"):
        conf.unlink()  # left by an earlier test that was killed
    return f"{conf} is there: this machine has a cluster of its own" if conf.exists() else None


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """The folder of a running cluster.

    Its partitions are main, urgent (which preempts) and plain (one node, down, without a GPU).
    """
    why = why_no_cluster()
    if why:
        refuse = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        refuse(why)
    # A temporary folder has a short path. Paths of sockets, which the folder holds, are limited.
    folder = Path(tempfile.mkdtemp(prefix="slurm"))
    try:
        command = [ROOT / "tests/slurm/up.sh", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        yield folder
    finally:
        subprocess.run([ROOT / "tests/slurm/down.sh", folder], timeout=60, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def shell(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


def running() -> list[tuple[str, str, str]]:
    """(id, node, comment) of every job that has run for at least four seconds.

    The comment comes from Snakemake's executor and names the rule or group.
    """
    lines = shell("squeue", "-h", "-t", "RUNNING", "-p", "main", "-o", "%M|%i|%N|%k").splitlines()
    too_short = ("0:00", "0:01", "0:02", "0:03")
    return [tuple(line.split("|", 3)[1:]) for line in lines if not line.startswith(too_short)]


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


class Submitted:
    """A run through SLURM: its clone and log, and the misfortunes that struck it."""

    def __init__(self, root: Path):
        self.root = root
        self.log = root / "snakemake.log"
        self.job_by_misfortune: dict[str, str] = {}  # name of a misfortune -> id of the job struck
        self.preempted_log: Path | None = None  # of the training run that was preempted
        self.torch_at_login = False  # whether Snakemake's own process loaded torch
        self.status: int | None = None  # Snakemake's exit status

    def start(self, cluster: Path, *arguments: str) -> subprocess.Popen:
        """Start Snakemake as on a login node.

        All processes that it starts, on any node, have TEST_CLUSTER in their environment.
        """
        snakemake = str(Path(os.sys.executable).with_name("snakemake"))
        command = [snakemake, "--configfile", STUDY, *HERE, *arguments]
        environment = {**CLEAN, "TEST_CLUSTER": str(cluster)}
        with self.log.open("w") as log:
            return subprocess.Popen(
                command,
                cwd=self.root,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def cancel(run: Submitted, job: str, node: str) -> None:
    shell("scancel", job)


def payload(job: str) -> tuple[int, Path]:
    """The Python process that does a job's work, and the file that it will write.

    Raises:
        LookupError: The job has not started its script yet.
    """
    variable = f"SLURM_JOB_ID={job}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        # A process may end, or be one that cannot be read.
        with contextlib.suppress(OSError):
            is_of_job = variable in (process / "environ").read_bytes().split(b"\0")
            words = (process / "cmdline").read_bytes().decode().split("\0")
            if is_of_job and "--request" in words:
                return int(process.name), Path(words[words.index("--output") + 1])
    raise LookupError("the job has not started its script yet")


def kill_payload(run: Submitted, job: str, node: str) -> None:
    """Send SIGKILL, as the kernel does when memory runs out."""
    process, _ = payload(job)
    os.kill(process, signal.SIGKILL)


def preempt(run: Submitted, job: str, node: str) -> None:
    """Preempt a training run by an urgent job.

    Raises:
        LookupError: The run has not been evaluated twice yet, so it would have little to resume.
    """
    _, output = payload(job)
    digest = output.parent.relative_to("results/demo/runs")
    log = run.root / "logs/demo/train" / digest.with_suffix(".log")
    if not log.is_file() or log.read_text().count("\nepoch") < 2:
        raise LookupError("the run has not been evaluated twice yet")
    where = ["-p", "urgent", "-w", node, "--exclusive"]
    shell("sbatch", *where, "-t", "1", "-o", "/dev/null", "--wrap", "sleep 2")
    run.preempted_log = log


def lose(run: Submitted, job: str, node: str) -> None:
    """Take the node down and bring it back."""
    shell("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    time.sleep(1)
    resume(node)


def resume(node: str) -> None:
    """Let a node take jobs again. That fails, without effect, if the node already does."""
    command = ["scontrol", "update", f"nodename={node}", "state=resume"]
    subprocess.run(command, capture_output=True, timeout=30, check=False)


def drain(run: Submitted, job: str, node: str) -> None:
    """Make the node take no more jobs until this one has ended."""
    shell("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")


# (name, a part of the comment of the jobs that it may strike, how to do it)
MISFORTUNES: list[tuple[str, str, Callable[[Submitted, str, str], None]]] = [
    ("drained", "cpu_tiny", drain),
    ("lost", "cpu_distilbert", lose),
    ("preempted", "rule_train", preempt),
    ("killed", "rule_train", kill_payload),
    ("cancelled", "rule_train", cancel),
]


def strike(run: Submitted) -> None:
    """Make the first misfortune that is still to come and finds a running job to strike.

    A job is struck only once. Jobs on a draining node are spared. When the job on it has ended,
    the node is opened again.
    """
    struck = run.job_by_misfortune
    jobs = running()
    drained_job = struck.get("drained")
    draining_nodes = [node for job, node, _ in jobs if job == drained_job]
    if drained_job and not draining_nodes:
        for node in ("n1", "n2"):
            resume(node)
    candidates = [
        job for job in jobs if job[1] not in draining_nodes and job[0] not in struck.values()
    ]
    for name, part, act in MISFORTUNES:
        if name in struck:
            continue
        for job, node, comment in candidates:
            if part in comment:
                with contextlib.suppress(LookupError):
                    act(run, job, node)
                    struck[name] = job
                    return


@pytest.fixture(scope="module")
def submitted(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    """The same study through SLURM. Misfortunes strike until each has struck once.

    Each training run requests a GPU, which the nodes only pretend to have.
    """
    run = Submitted(clone_of(tmp_path_factory.mktemp("submitted") / "clone"))
    edit(run.root / "profiles/cluster.yaml", "\naccount:  ", "\naccount: lab ")
    process = run.start(cluster, "--profile", "profiles/slurm", "--set-resources", "train:gpu=1")
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


def accounts(*options: str) -> list[dict[str, str]]:
    """The rows of SLURM's accounting.

    Each job has one. With `--duplicates`, a requeued job has one for each time that it ran.
    """
    names = ["JobID", "State", "ReqTRES", "AllocTRES"]
    names += ["TimelimitRaw", "Account", "Partition", "Comment"]
    lines = shell("sacct", "-X", "-n", "-P", "-o", ",".join(names), *options).splitlines()
    return [dict(zip(names, line.split("|"), strict=True)) for line in lines]


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
    process = again.start(cluster, *options, "--", *runs)
    assert process.wait(timeout=180) == 0, again.log.read_text()[-5000:]
    for path, old in before.items():
        new = result.read(made(again.root, path))
        assert new["cost"] != old["cost"]
        assert reproducible(new) == reproducible(old)
    tasks = [job for job in accounts() if re.fullmatch(r"\d+_[12]", job["JobID"])]
    assert [job["State"] for job in tasks] == ["COMPLETED"] * 2
    assert all("gres/gpu=1" in job["AllocTRES"] for job in tasks)


# Refused before submission --------------------------------------------------------------------------------------------


def job_ids() -> set[str]:
    return set(shell("squeue", "-h", "-t", "all", "-o", "%i").split())


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
