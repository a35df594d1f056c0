"""What another user of the machine does to the shared folders lets nobody in and makes nobody wait.

The other user is a real one: nobody, by setpriv. The one who is attacked is root, or, where a file's
mode decides, the other way round, since root may open any file.
"""

import json
import os
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.other_user import (
    call_as_nobody,
    let_others_enter,
    locked_by_nobody,
    locking_as_nobody,
    needs_root,
    run_as_nobody,
    wait_until_locked,
)
from helpers.simulated_gpus import simulate
from rankwise.execution import gpu_lease, gpus, lease_locks, worker_client
from rankwise.execution.gpus import GIB, GpuError
from rankwise.execution.lease_queue import Queue
from rankwise.execution.worker_folder import UnsafeFolder, peer_is_this_user, worker_folder

pytestmark = needs_root


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files like /tmp: everybody may write, and remove their own files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    let_others_enter(folder)
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


# The worker's folder -------------------------------------------------------------------------------


def link(folder: Path) -> None:
    run_as_nobody("mkdir", "-m", "777", f"{folder}-elsewhere")
    run_as_nobody("ln", "-s", f"{folder}-elsewhere", folder)


def squat(folder: Path) -> None:
    run_as_nobody("mkdir", "-m", "777", folder)


def file(folder: Path) -> None:
    run_as_nobody("touch", folder)


def open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)


ATTACKS = [
    (link, "{} is no folder; remove it or set TMPDIR"),
    (squat, "{} belongs to user 65534; set TMPDIR"),
    (file, "{} is no folder; remove it or set TMPDIR"),
    (open_to_all, "{} has mode 755, so other users may enter it; remove it or set TMPDIR"),
]


@pytest.mark.parametrize(("attack", "sentence"), ATTACKS)
def test_a_worker_folder_of_others_is_not_used_and_the_log_says_why(
    attack: Callable[[Path], None], sentence: str, shared: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = shared / f"rankwise-{os.getuid()}"
    attack(folder)
    before = sorted(shared.rglob("*"))
    assert worker_client.run_in_server(["script"], False, {}, []) is None
    assert capsys.readouterr().err == (
        f"rankwise: this job runs without a worker process: {sentence.format(folder)}\n"
    )
    assert sorted(shared.rglob("*")) == before  # no socket, no lock


def test_the_worker_folder_is_private(shared: Path) -> None:
    folder = worker_folder()
    assert folder == worker_folder() == shared / f"rankwise-{os.getuid()}"
    assert folder.stat().st_mode & 0o7777 == 0o700
    assert call_as_nobody(lambda: list(folder.iterdir())).startswith("PermissionError")


def test_a_path_too_long_for_a_socket_is_said(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", f"{shared}/{'long' * 30}")
    with pytest.raises(UnsafeFolder, match="is too long for a socket; set TMPDIR"):
        worker_folder()


def test_a_server_of_another_user_is_not_spoken_to(shared: Path) -> None:
    """Its owner is asked of the kernel, so a socket in place of ours gets no job."""
    ours, theirs = socket.socketpair()
    assert peer_is_this_user(ours)
    assert peer_is_this_user(theirs)
    address = str(shared / "socket")

    def listen() -> str:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        Path(address).chmod(0o777)
        listener.listen()
        os.write(started, b"y")
        with listener.accept()[0] as connection:
            return f"received {connection.recv(10)!r}"

    ready, started = os.pipe()
    pid = os.fork()
    if pid == 0:
        heard = call_as_nobody(listen)
        os._exit(0 if heard == "received b''" else 1)
    os.close(started)
    assert os.read(ready, 1) == b"y"
    with pytest.raises(UnsafeFolder, match=f"another user answers at {address}"):
        worker_client.connect_to_own(address)
    assert os.waitpid(pid, 0)[1] == 0


# The queue for GPUs --------------------------------------------------------------------------------


@pytest.fixture
def leases(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the queue for two simulated GPUs, as a run of root's has made it."""
    use_gpus(shared, monkeypatch, 8, 8)
    monkeypatch.setattr(gpus, "SMI", "no-such-program")
    gpu_lease.take(1, 0).release()
    return shared / "leases"


def use_gpus(shared: Path, monkeypatch: pytest.MonkeyPatch, *sizes_gib: float) -> None:
    for name, value in simulate(shared, *sizes_gib).items():
        monkeypatch.setenv(name, value)


def uuids_of(whole: int, lines: list[str] | None = None) -> str:
    """The GPUs of a lease that is given back at once."""
    lease = gpu_lease.take(whole, 0, say=(lines if lines is not None else []).append)
    lease.release()
    return lease.environment["CUDA_VISIBLE_DEVICES"]


def write_as_nobody(path: Path, text: str) -> None:
    run_as_nobody("sh", "-c", 'printf "%s" "$1" > "$2"', "sh", text, path)


def entry(ticket: int, whole: int, sizes: dict[str, int], uuids: tuple = ()) -> str:
    return json.dumps([ticket, [whole, 0], sizes, uuids, 0, 0, "you\x1b[2J (pid 1)"])


def test_junk_in_the_queue_is_passed_over(leases: Path, shared: Path) -> None:
    """Counters that are no numbers, and job files that are junk, links, pipes and folders."""
    private = shared / "private"
    private.write_text("root's own text")
    write_as_nobody(leases / "queue", "no numbers")
    write_as_nobody(leases / "000000000001.job", "junk")
    write_as_nobody(leases / "name.job", entry(7, 1, {"SIM-0": 8 * GIB}))
    run_as_nobody("ln", "-s", private, leases / "000000000002.job")
    run_as_nobody("mkfifo", leases / "000000000003.job")
    run_as_nobody("mkdir", leases / "000000000004.job")
    write_as_nobody(leases / "000000000005.job", "[" * 100_000)
    assert uuids_of(2) == "SIM-0,SIM-1"
    assert private.read_text() == "root's own text"
    assert (leases / "000000000002.job").is_symlink()


JUNK_ENTRIES = {
    "not json": "junk",
    "more GPUs than it names": entry(0, 99, {"SIM-0": 8 * GIB, "SIM-1": 8 * GIB}),
    "a ticket of another file": entry(5, 2, {"SIM-0": 8 * GIB, "SIM-1": 8 * GIB}),
    "negative counts": entry(0, -1, {"SIM-0": 8 * GIB, "SIM-1": 8 * GIB}),
    "a huge number": entry(0, 1, {"SIM-0": 10**400, "SIM-1": 10**400}),
    "text for a size": json.dumps([0, [1, 0], {"SIM-0": "8"}, [], 0, 0, "x"]),
}


@pytest.mark.parametrize("content", JUNK_ENTRIES.values(), ids=JUNK_ENTRIES)
def test_junk_that_its_owner_keeps_locked_is_passed_over(content: str, leases: Path) -> None:
    path = leases / "000000000000.job"
    write_as_nobody(path, content)
    with locked_by_nobody(path):
        assert uuids_of(2) == "SIM-0,SIM-1"


def test_a_job_that_never_takes_its_gpus_is_passed_over(
    leases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's file says that a job waits, first in the queue; nothing ever asks for it."""
    monkeypatch.setattr(gpu_lease, "REPORT_EVERY_S", 0.05)
    path = leases / "000000000000.job"
    write_as_nobody(path, entry(0, 2, {"SIM-0": 8 * GIB, "SIM-1": 8 * GIB}))
    lines: list[str] = []
    with locked_by_nobody(path):
        assert uuids_of(1, lines) == "SIM-0"
    assert (
        lines[: gpu_lease.IDLE_LOOKS]
        == ["waits for a whole GPU: 1 job came before"] * gpu_lease.IDLE_LOOKS
    )


@pytest.mark.parametrize("hides", [False, True])
def test_the_lock_of_a_dead_job_that_another_user_takes_keeps_no_gpu(
    hides: bool, leases: Path
) -> None:
    """A lock needs no more than the right to read, so nobody can lock the file of root's job."""
    ready, started = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            gpu_lease.take(2, 0, say=lambda _line: None)
            os.write(started, b"y")
            signal.pause()
        finally:
            os._exit(1)
    os.close(started)
    assert os.read(ready, 1) == b"y"
    (path,) = leases.glob("*.job")
    with locking_as_nobody(path, hides) as process:
        with Queue(leases) as queue:
            assert [job.uuids for job in queue.jobs()] == [("SIM-0", "SIM-1")]
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        wait_until_locked(process)
        assert uuids_of(2) == "SIM-0,SIM-1"


def test_a_queue_that_another_user_keeps_locked_is_refused_in_time(
    leases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_locks, "QUEUE_TIMEOUT_S", 0.2)
    with locked_by_nobody(leases / "queue") as process, pytest.raises(GpuError) as refusal:
        gpu_lease.take(1, 0)
    assert str(refusal.value) == (
        f"{leases}/queue: got a file that pid {process.pid} (user nobody) has kept locked, allowed: an "
        "ordinary file of the queue for GPUs that all users may write; ask user root to remove it, or "
        "set RANKWISE_LEASES to another folder"
    )


def test_a_gpu_that_another_user_keeps_locked_is_waited_for_no_longer_than_allowed(
    leases: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines say who has it. Another GPU is taken in its place where there is one."""
    monkeypatch.setattr(gpu_lease, "REPORT_EVERY_S", 0.05)
    monkeypatch.setenv("RANKWISE_LEASE_HOURS", "0.00005")
    card = leases / "SIM-0.card"
    with locked_by_nobody(card) as process:
        assert uuids_of(1) == "SIM-1"
        use_gpus(shared, monkeypatch, 8)
        with pytest.raises(GpuError) as refusal:
            gpu_lease.take(1, 0)
    assert str(refusal.value) == (
        "RANKWISE_LEASE_HOURS: waits for a whole GPU: "
        f"{card} is locked by pid {process.pid} (user nobody), for more than 5e-05 hours"
    )


@pytest.mark.parametrize("hours", ["-1", "nan", "soon"])
def test_a_longest_wait_that_is_no_number_is_refused(
    hours: str, leases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKWISE_LEASE_HOURS", hours)
    with pytest.raises(GpuError, match=r"RANKWISE_LEASE_HOURS: got .*, allowed: a number of hours"):
        gpu_lease.take(1, 0)


def make_link(path: Path) -> None:
    run_as_nobody("ln", "-s", "/etc/passwd", path)


def make_pipe(path: Path) -> None:
    run_as_nobody("mkfifo", path)


def make_second_name(path: Path) -> None:
    """As another user can where fs.protected_hardlinks is off; here root does it."""
    (path.parent / "other").write_text("text of root's own")
    path.hardlink_to(path.parent / "other")


BAD_FILES = [
    (make_link, "a symbolic link"),
    (make_pipe, "no ordinary file"),
    (make_second_name, "a file with a second name (hard link)"),
]


@pytest.mark.parametrize(("make", "got"), BAD_FILES)
def test_a_queue_that_is_no_ordinary_file_is_named(
    make: Callable[[Path], None], got: str, leases: Path
) -> None:
    (leases / "queue").unlink()
    make(leases / "queue")
    with pytest.raises(GpuError) as refusal:
        gpu_lease.take(1, 0)
    assert str(refusal.value).startswith(f"{leases}/queue: got {got}, allowed: an ordinary file")


@pytest.mark.parametrize(("make", "got"), BAD_FILES)
def test_a_gpu_whose_file_is_no_ordinary_one_is_left_out(
    make: Callable[[Path], None],
    got: str,
    leases: Path,
    shared: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = leases / "SIM-0.card"
    card.unlink(missing_ok=True)
    make(card)
    lines: list[str] = []
    assert uuids_of(1, lines) == "SIM-1"
    assert lines[0].startswith(f"a GPU is left out: {card}: got {got}, allowed: an ordinary file")
    use_gpus(shared, monkeypatch, 8)
    with pytest.raises(GpuError, match=f"{card}: got "):
        gpu_lease.take(1, 0)


def test_files_and_folders_that_other_users_closed_are_named(leases: Path) -> None:
    """Here nobody is the one who asks, because root may open what it likes."""
    take = lambda: gpu_lease.take(1, 0, say=lambda _line: None).environment  # noqa: E731
    assert '"CUDA_VISIBLE_DEVICES": "SIM-0"' in call_as_nobody(lambda: json.dumps(take()))
    (leases / "queue").chmod(0o600)
    assert call_as_nobody(take).startswith(f"GpuError: {leases}/queue: got permission denied, ")
    assert "ask user root to remove it" in call_as_nobody(take)
    leases.chmod(0o700)
    assert call_as_nobody(take) == (
        f"GpuError: RANKWISE_LEASES: got {leases}, which belongs to user root, "
        "allowed: a folder that every user of this machine may write (mode 1777)"
    )
