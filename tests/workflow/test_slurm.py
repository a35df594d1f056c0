"""The demo through a real SLURM: nodes, accounting, preemption; jobs killed, nodes lost and drained meanwhile; results as here.

The cluster runs on this machine (tests/slurm/up.sh), as root, with Debian's packages, which are installed where they lack. The study is
the demo with one seed and one rank, and a shorter pre-training: every kind of job is left, and each costs seconds of SLURM's own.
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
from rankwise.execution import job_memory, slurm_nodes
from rankwise.execution import slurm_request as asked
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
# Two CPUs a node, a shared disk that is no network's, and jobs of seconds.
HERE = ["--cores", "2", "--latency-wait", "5", "--slurm-init-seconds-before-status-checks", "2"]
LIMIT_S = 1800
RUN = "results/runs/tiny/generated_reviews/{}/seed0/train.json"


# The cluster ----------------------------------------------------------------------------------------------------------


def lacks() -> str | None:
    """Why there can be no cluster here; installs what is missing."""
    if os.geteuid() != 0:
        return "SLURM's daemons need root"
    if not all(map(shutil.which, PROGRAMS)):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES],
        ):
            done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
            if done.returncode:
                return f"{' '.join(command[:2])}: {done.stderr[-500:]}"
    conf = Path("/etc/slurm/slurm.conf")
    if (
        conf.is_symlink()
        and subprocess.run(
            ["pgrep", "-x", "slurmctld"], capture_output=True, check=False
        ).returncode
    ):
        conf.unlink()  # of a test that was stopped at once
    return f"{conf} is there: this machine has a cluster of its own" if conf.exists() else None


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """The folder of a running cluster: partitions main, urgent (preempts) and plain (a node that is down, without a GPU)."""
    if why := lacks():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)
    folder = Path(tempfile.mkdtemp(prefix="slurm"))  # a short path: sockets lie in it
    try:
        done = subprocess.run(
            [ROOT / "tests/slurm/up.sh", folder],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield folder
    finally:
        subprocess.run([ROOT / "tests/slurm/down.sh", folder], timeout=60, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def shell(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


def running() -> list[tuple[str, str, str]]:
    """(id, node, comment) of every job that has run for some seconds; the executor's comment names the rule or group."""
    lines = shell("squeue", "-h", "-t", "RUNNING", "-p", "main", "-o", "%M|%i|%N|%k").splitlines()
    return [
        tuple(line.split("|", 3)[1:])
        for line in lines
        if line[:4] not in ("0:00", "0:01", "0:02", "0:03")
    ]


# The study, here and there --------------------------------------------------------------------------------------------


def few(demo: dict) -> dict:
    """The demo with one seed, one rank of each model, and of profiles those that its figures need; trainings of some seconds."""
    ranks = {"tiny": [8], "distilbert": [16]}
    train, profile = (
        [{**grid, "ranks": ranks[grid["models"][0]]} for grid in demo[kind]]
        for kind in ("train", "profile")
    )
    for grid in train:
        grid |= {"seeds": [0], "schedule": {"epochs": 12}}
    for grid in profile:
        if grid["measurements"] != ["memory"]:
            grid["methods"] = ["lora"]
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
    """A clone in which the study was built by this machine alone."""
    root = clone_of(tmp_path_factory.mktemp("local") / "clone")
    done = run_snakemake(root, "--configfile", STUDY, "--cores", "2")
    assert done.returncode == 0, done.stderr[-5000:]
    return root


class Submitted:
    """What a run through SLURM left, and what was done to it."""

    def __init__(self, root: Path):
        self.root = root
        self.log = root / "snakemake.log"
        self.done: dict[str, str] = {}  # what was done -> the job that it was done to
        self.preempted: Path | None = None  # the log of the training that was
        self.torch_at_login = False
        self.status: int | None = None

    def start(self, cluster: Path, *arguments: str) -> subprocess.Popen:
        """Snakemake at the login node; whatever it starts, wherever, has TEST_CLUSTER in its environment."""
        command = [
            str(Path(os.sys.executable).with_name("snakemake")),
            "--configfile",
            STUDY,
            *HERE,
            *arguments,
        ]
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
    """The Python process that does a job's work, and what it is to write."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ours = f"SLURM_JOB_ID={job}".encode() in (process / "environ").read_bytes().split(b"\0")
            words = (process / "cmdline").read_bytes().decode().split("\0")
            if ours and "--request" in words:
                return int(process.name), Path(words[words.index("--output") + 1])
    raise LookupError("it has not come to its script yet")


def kill_payload(run: Submitted, job: str, node: str) -> None:
    """SIGKILL, as a machine short of memory sends it."""
    os.kill(payload(job)[0], signal.SIGKILL)


def preempt(run: Submitted, job: str, node: str) -> None:
    """Once it has learnt something."""
    log = (
        run.root
        / "logs/train"
        / payload(job)[1].parent.relative_to("results/runs").with_suffix(".log")
    )
    if not log.is_file() or log.read_text().count("\nepoch") < 2:
        raise LookupError("it has not been evaluated yet")
    shell(
        "sbatch",
        "-p",
        "urgent",
        "-w",
        node,
        "--exclusive",
        "-t",
        "1",
        "-o",
        "/dev/null",
        "--wrap",
        "sleep 2",
    )
    run.preempted = log


def lose(run: Submitted, job: str, node: str) -> None:
    """The node goes down, and comes back."""
    shell("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    time.sleep(1)
    resume(node)


def resume(node: str) -> None:
    """Let a node take jobs again, if it does not yet."""
    subprocess.run(
        ["scontrol", "update", f"nodename={node}", "state=resume"],
        capture_output=True,
        timeout=30,
        check=False,
    )


def drain(run: Submitted, job: str, node: str) -> None:
    """The node takes no more jobs until this one has ended."""
    shell("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")


MISFORTUNES: list[tuple[str, str, Callable[[Submitted, str, str], None]]] = [
    ("drained", "cpu_tiny", drain),
    ("lost", "cpu_distilbert", lose),
    ("preempted", "rule_train", preempt),
    ("killed", "rule_train", kill_payload),
    ("cancelled", "rule_train", cancel),
]


def strike(run: Submitted) -> None:
    """One misfortune, if a job that it is meant for runs and was spared until now; a drained node is left alone, then opened."""
    drained = run.done.get("drained")
    jobs = running()
    closed = [node for job, node, _ in jobs if job == drained]
    if drained and not closed:
        for node in ("n1", "n2"):
            resume(node)
    for name, meant, act in MISFORTUNES:
        if name not in run.done:
            for job, node, comment in jobs:
                if meant in comment and node not in closed and job not in run.done.values():
                    with contextlib.suppress(LookupError):
                        act(run, job, node)
                        run.done[name] = job
                        return


@pytest.fixture(scope="module")
def submitted(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    """The same study through SLURM, every training on a (pretended) GPU; misfortunes strike until each has struck once."""
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


def test_it_ends_well_whatever_strikes(submitted: Submitted) -> None:
    assert submitted.status == 0, submitted.log.read_text()[-8000:]
    assert set(submitted.done) == {name for name, _, _ in MISFORTUNES}


TIMES = ("_s", "_per_second", "_joules", "_watts")


def reproducible(value: object) -> object:
    """A result less times, what follows from them (timings repeat for so many seconds), and the machine."""
    if isinstance(value, list):
        return [reproducible(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: reproducible(one)
        for key, one in value.items()
        if key not in ("cost", "environment", "repeats") and not key.endswith(TIMES)
    }


def test_every_result_is_the_local_one(submitted: Submitted, local: Path) -> None:
    files = {
        path.relative_to(local): json.loads(path.read_text())
        for path in (local / "results").rglob("*.json")
    }
    plan = Plan(yaml.safe_load((local / STUDY).read_text()), local, STUDY)
    assert {
        Path(plan.path(kind, cell))
        for kind in ("train", *MEASUREMENTS)
        for cell in plan.cells(kind)
    } <= set(files)
    for path, result in files.items():
        other = json.loads((submitted.root / path).read_text())
        assert json.dumps(reproducible(other), sort_keys=True) == json.dumps(
            reproducible(result), sort_keys=True
        ), path
    for path in [
        path
        for path in (local / "results").rglob("*.*")
        if path.suffix in (".png", ".csv", ".html", ".parquet")
    ]:
        assert (submitted.root / path.relative_to(local)).stat().st_size


def accounts(*options: str) -> list[dict[str, str]]:
    """What accounting says of every job, those that were requeued once for each time."""
    names = [
        "JobID",
        "State",
        "ReqTRES",
        "AllocTRES",
        "TimelimitRaw",
        "Account",
        "Partition",
        "Comment",
    ]
    lines = shell("sacct", "-X", "-n", "-P", "-o", ",".join(names), *options).splitlines()
    return [dict(zip(names, line.split("|"), strict=True)) for line in lines]


def test_accounting_shows_gpus_memory_and_time(submitted: Submitted) -> None:
    trains = [job for job in accounts() if "rule_train" in job["Comment"]]
    plan = Plan(yaml.safe_load((submitted.root / STUDY).read_text()), submitted.root, STUDY)
    asked_for = {
        (job_memory.training_mib(plan, cell), job_memory.training_min(plan, cell))
        for cell in plan.cells("train")
    }
    assert len(trains) >= 4
    for job in trains:
        for kind in ("ReqTRES", "AllocTRES"):
            assert "gres/gpu=1" in job[kind]
            assert "cpu=1" in job[kind]
            assert (
                int(re.search(r"mem=(\d+)M", job[kind])[1]),
                int(job["TimelimitRaw"]),
            ) in asked_for
        assert job["Account"] == "lab"
    assert not any("gpu" in job["AllocTRES"] for job in accounts() if "rule_cpu_" in job["Comment"])


def test_accounting_shows_what_struck(submitted: Submitted) -> None:
    states = {
        name: [job["State"] for job in accounts("--duplicates", "-j", one)]
        for name, one in submitted.done.items()
    }
    assert states["cancelled"] == ["CANCELLED by 0"]
    assert states["killed"] == ["FAILED"]
    assert states["drained"] == ["COMPLETED"]
    for name in ("preempted", "lost"):  # by SLURM, under the same id
        assert len(states[name]) > 1, states
        assert states[name][-1] == "COMPLETED"


def test_what_was_preempted_goes_on(submitted: Submitted) -> None:
    """From where it was, on whichever node: its result is compared with the local one above."""
    assert ": resumed after update " in submitted.preempted.read_text()
    assert not list((submitted.root / "results/checkpoints").iterdir())


def test_all_profiles_of_a_cell_are_one_submission(submitted: Submitted) -> None:
    names = re.findall(
        r"has been submitted with SLURM jobid \d+ \(log: \S*/(group_cpu_\S+)/",
        submitted.log.read_text(),
    )
    assert sorted(re.sub(r"_r\d+_.*", "", name) for name in set(names)) == [
        *(f"group_cpu_distilbert_sst2_{method}" for method in ("full", "lora", "rsvd")),
        *(
            f"group_cpu_tiny_generated_reviews_{method}"
            for method in ("full", "head_only", "lora", "rsvd")
        ),
    ]
    assert "_r8_flops_forward_ledger_memory_throughput" in "".join(names)


def test_the_login_node_imports_no_torch_and_keeps_no_server(submitted: Submitted) -> None:
    assert not submitted.torch_at_login
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ours = str(submitted.root).encode() in (process / "environ").read_bytes()
            assert not (
                ours and b"rankwise.execution.worker_server" in (process / "cmdline").read_bytes()
            ), process


def test_the_log_of_a_failed_job_stays(submitted: Submitted) -> None:
    kept = [path.stem for path in (submitted.root / "logs/slurm").rglob("*.log")]
    assert submitted.done["killed"] in kept
    assert len(kept) < 10, "those of jobs that ended well are gone"


def test_an_array_asks_for_gpus_by_gres(cluster: Path, submitted: Submitted) -> None:
    again = Submitted(submitted.root)
    runs = [RUN.format(one) for one in ("lora/r8", "full/r0")]
    before = {path: json.loads((again.root / path).read_text()) for path in runs}
    options = [
        "--slurm-array-jobs",
        "train",
        "--set-resources",
        "train:gpu=1",
        "--forcerun",
        "train",
        "--",
        *runs,
    ]
    process = again.start(cluster, "--profile", "profiles/slurm-gres", *options)
    assert process.wait(timeout=180) == 0, again.log.read_text()[-5000:]
    for path, old in before.items():
        new = json.loads((again.root / path).read_text())
        assert new["cost"] != old["cost"]
        assert reproducible(new) == reproducible(old)
    tasks = [job for job in accounts() if re.fullmatch(r"\d+_[12]", job["JobID"])]
    assert [job["State"] for job in tasks] == ["COMPLETED"] * 2
    assert all("gres/gpu=1" in job["AllocTRES"] for job in tasks)


# Refused before submission --------------------------------------------------------------------------------------------


def job_ids() -> set[str]:
    return set(shell("squeue", "-h", "-t", "all", "-o", "%i").split())


def refused(root: Path, *arguments: str) -> str:
    before = job_ids()
    done = run_snakemake(
        root, "--configfile", STUDY, "--profile", "profiles/slurm", *HERE, "--forceall", *arguments
    )
    assert done.returncode != 0
    assert job_ids() <= before, "a job was submitted"  # SLURM forgets ended jobs meanwhile
    return done.stderr


def test_what_no_node_has_is_refused(cluster: Path, local: Path) -> None:
    said = refused(
        local, "--set-resources", "train:mem_mb=9000", "train:gpu=1", "prepare_dataset:runtime=3000", "pretrain_model:gpu=2",
        "memory:mem_mb=20000", "--slurm-array-jobs", "prepare_dataset",
    )  # fmt: skip
    where = f"{STUDY}: "
    assert (
        where
        + "mem_mb of train: got 9000, allowed: at most 8000, the MiB of a node in partition main"
        in said
    )
    assert where + "mem_mb of profile: got 20000, allowed: at most 8000" in said
    assert (
        where
        + "runtime of prepare_dataset: got 3000, allowed: at most 1440, the minutes that a job may take"
        in said
    )
    assert (
        where
        + "gpu of pretrain_model: got 2, allowed: at most 1, the GPUs of a node in partition main"
        in said
    )


def test_unknown_names_are_refused(cluster: Path, local: Path) -> None:
    file = local / "profiles/cluster.yaml"
    kept = file.read_text()
    try:
        file.write_text("partition: mian\ngpu_partition: plain\n")
        said = refused(local, "--set-resources", "train:gpu=1")
        assert (
            "profiles/cluster.yaml: partition: got 'mian', allowed: main, plain, urgent (nearest: 'main')"
            in said
        )
        assert "profiles/cluster.yaml: gpu_partition: got 'plain', allowed: main, urgent" in said
        file.write_text("gpu_model: a100\n")
        assert "profiles/cluster.yaml: gpu_model: got 'a100', allowed: toy" in refused(
            local, "--set-resources", "train:gpu=1"
        )
    finally:
        file.write_text(kept)


def test_a_cluster_that_does_not_answer(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = (
        (cluster / "slurm.conf")
        .read_text()
        .replace("SlurmctldPort=16817", "SlurmctldPort=1\nMessageTimeout=2")
    )
    (tmp_path / "slurm.conf").write_text(conf)
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    assert (
        "allowed: a machine with a SLURM cluster that answers; sinfo says: "
        in slurm_nodes.refusals([], STUDY, "squeue", [])[0]
    )


def test_this_cluster_has_nodes(cluster: Path) -> None:
    assert slurm_nodes.Node("main", True, "n1", 2, 8000, 1440, {"toy": 1}) in slurm_nodes.nodes()
    assert (
        slurm_nodes.refusals(
            [asked.Ask("train", "plain", 1, 500, 10, 0, None)], STUDY, "squeue", [Path("/tmp")]
        )
        == []
    )
