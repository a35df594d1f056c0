"""GPUs are leased as promised, and free again when the last process of a job is gone."""

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.nvidia_smi import install_nvidia_smi
from helpers.other_user import let_others_enter
from helpers.repository import ROOT
from helpers.simulated_gpus import simulate
from rankwise.execution import gpu_lease, gpus
from rankwise.execution.gpus import GIB, GpuError
from rankwise.execution.lease_queue import Queue

GPU_COUNTS = (2, 4, 8)


@pytest.fixture
def simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Simulate GPUs of the given sizes (GiB), without nvidia-smi; the folder that has the leases."""

    def install(*sizes_gib: float) -> Path:
        for name, value in simulate(tmp_path, *sizes_gib).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(gpus, "SMI", "no-such-program")
        return tmp_path

    return install


# Many jobs at once ---------------------------------------------------------------------------------


def run_schedules(*arguments: str) -> str:
    """What the helper prints that runs jobs in real processes."""
    command = [sys.executable, str(ROOT / "tests/helpers/lease_schedules.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("gpu_count", "schedules"),
    [
        *((count, 20) for count in GPU_COUNTS),
        *(pytest.param(count, 334, marks=pytest.mark.slow) for count in GPU_COUNTS),
    ],
)
def test_random_schedules_with_kills(gpu_count: int, schedules: int) -> None:
    """Never two whole leases on a GPU, never more bytes than it has, and every job is served."""
    assert run_schedules("--gpus", str(gpu_count), "--schedules", str(schedules)) == ""


@pytest.mark.parametrize("gpu_count", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_small_jobs_are_packed(gpu_count: int) -> None:
    """Jobs of 1.5 GiB on GPUs of 8 GiB: one at a time on a whole GPU, up to five where shared."""
    output = run_schedules("--gpus", str(gpu_count), "--makespan", str(4 * gpu_count))
    makespan = json.loads(output)
    assert makespan["serial"]["together"] == 1
    assert 1 < makespan["packed"]["together"] <= 5


# One lease -----------------------------------------------------------------------------------------


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_dead_job_of_another_user_keeps_no_gpu(simulated) -> None:
    """While it lives, it is in the same queue. Its file, which others cannot remove, is ignored."""
    folder = simulated(8)
    let_others_enter(folder)
    first = gpu_lease.take(0, 1)
    assert stat.S_IMODE((folder / "leases").stat().st_mode) == 0o1777
    pid = fork_as_nobody_with_a_share(gib=2)
    with Queue(folder / "leases") as queue:
        assert [job.need.memory_bytes // GIB for job in queue.jobs()] == [1, 2]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    first.release()
    whole = gpu_lease.take(1, 0)
    assert whole.environment["CUDA_VISIBLE_DEVICES"] == "SIM-0"
    whole.release()


def fork_as_nobody_with_a_share(gib: int) -> int:
    """The process number of a fork of another user, which has a share and keeps it."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            lease = gpu_lease.take(0, gib)
            os.write(write_end, b"y" if lease and lease.shared else b"n")
            signal.pause()
        finally:
            os._exit(1)
    assert os.read(read_end, 1) == b"y"
    return pid


def test_a_waiting_job_says_what_it_waits_for(simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so once, again after REPORT_EVERY_S, and once more when it has its GPU."""
    simulated(8)
    monkeypatch.setattr(gpu_lease, "REPORT_EVERY_S", 1e9)
    held = gpu_lease.take(1, 0)
    releasing = threading.Timer(0.3, held.release)
    releasing.start()
    lines: list[str] = []
    lease = gpu_lease.take(0, 1.5, say=lines.append)
    releasing.join()
    waiting, running = lines
    assert waiting.startswith("waits for 1.50 GiB of a GPU: ")
    assert waiting.endswith(f"(pid {os.getpid()}) has a whole GPU on SIM-0")
    assert running == "runs on 1.50 GiB of a GPU: SIM-0 (simulated, 8.0 GiB)"
    lease.release()


def test_a_gpu_that_somebody_locked_by_hand_is_not_taken(simulated) -> None:
    folder = simulated(8, 8)
    (folder / "leases").mkdir()
    with (folder / "leases/SIM-0.card").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        lease = gpu_lease.take(1, 0)
        assert lease.environment["CUDA_VISIBLE_DEVICES"] == "SIM-1"
        lease.release()


@pytest.mark.parametrize(("whole", "memory_gib", "sentence"), [
    (3, 0, "resources: gpu, gpu_memory_gib: got 3 GPUs, allowed on this machine: SIM-0 (simulated, 8.0 GiB), SIM-1"),
    (0, 25, "got 25 GiB of one GPU, allowed on this machine: SIM-0 (simulated, 8.0 GiB), SIM-1 (simulated, 24.0 GiB)"),
    (1, 25, "got 1 GPU of at least 25 GiB, allowed on this machine"),
    (2, 16, "got 2 GPUs of at least 16 GiB, allowed on this machine"),
])  # fmt: skip
def test_what_no_gpu_can_give_is_refused_at_once(
    whole: int, memory_gib: float, sentence: str, simulated
) -> None:
    simulated(8, 24)
    with pytest.raises(GpuError) as refusal:
        gpu_lease.take(whole, memory_gib)
    assert sentence in str(refusal.value)


def test_a_folder_that_cannot_be_written_is_named(
    simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = simulated(8)
    (folder / "file").write_text("")
    monkeypatch.setenv("RANKWISE_LEASES", str(folder / "file"))
    message = (
        r"RANKWISE_LEASES: got .*/file, which belongs to user .*, allowed: a folder that every user"
    )
    with pytest.raises(GpuError, match=message):
        gpu_lease.take(1, 0)


# Other people's programs ---------------------------------------------------------------------------


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_nvidia_smi(tmp_path, monkeypatch)


def test_notes_name_other_programs_and_several_kinds_of_gpus(driver) -> None:
    assert gpu_lease.notes(gpus.available({})) == [
        "GPU-aa-1 (NVIDIA H100, 79.6 GiB): others have 4.0 GiB there; python3 (pid 77)",
        "GPUs of several kinds (NVIDIA H100, NVIDIA A100 MIG 3g.20gb, NVIDIA A100 MIG 1g.5gb+me): "
        "times differ; CUDA_VISIBLE_DEVICES keeps to some of them",
    ]


@pytest.mark.parametrize(
    ("whole", "memory_gib", "words", "record"),
    [
        (0, 75, "75.00 GiB of a GPU", {"shared": True, "share_bytes": 75 * GIB}),
        (1, 0, "a whole GPU", {"shared": False}),
    ],
)
def test_memory_of_other_programs_is_left_to_them_and_recorded(
    whole: int,
    memory_gib: float,
    words: str,
    record: dict,
    driver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    lines: list[str] = []
    lease = gpu_lease.take(whole, memory_gib, say=lines.append)
    gpu = "GPU-aa-1 (NVIDIA H100, 79.6 GiB)"
    assert lines == [f"runs on {words}: {gpu}; others have 4.0 GiB there"]
    expected = {"uuids": ["GPU-aa-1"], "others_bytes": 4 * GIB, **record}
    assert json.loads(lease.environment["RANKWISE_CARD"]) == expected
    lease.release()


# Without a driver or its tool ----------------------------------------------------------------------


def test_a_share_of_a_gpu_of_unknown_size_is_a_whole_gpu() -> None:
    need = gpu_lease.fitting(0, 3, [gpus.Gpu("GPU-ee-5", "NVIDIA H100", 0)])
    assert need == (1, 0)


def test_without_a_gpu_no_lease_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulated
) -> None:
    simulated(8)
    monkeypatch.delenv("RANKWISE_CARDS")
    monkeypatch.setattr(gpus, "PROC", tmp_path / "none")
    lines: list[str] = []
    assert gpu_lease.take(1, 0, say=lines.append) is None
    assert lines == ["no GPU is known here, so this job takes none"]
