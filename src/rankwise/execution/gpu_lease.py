"""Leases: which job may use which GPU, agreed on among all runs of ours on a machine.

The leases are locks on files in one folder for all users, /tmp/rankwise-cards or RANKWISE_LEASES,
which containers have to share. A lease is no guard against programs that use a GPU without asking:
the memory that such a program uses is measured, reported and left to it. Whoever locks a GPU's
file with flock(1) keeps that GPU from us.

Standard library only.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rankwise.core import settings
from rankwise.execution import gpus
from rankwise.execution.gpu_packing import Need
from rankwise.execution.gpus import GIB, Gpu, GpuError
from rankwise.execution.lease_files import user_name
from rankwise.execution.lease_locks import usable
from rankwise.execution.lease_queue import Grant, Job, Queue, describe

IDLE_BYTES = 2**28  # the driver itself uses up to this much of a GPU on which nobody computes
FIRST_POLL_S, LAST_POLL_S = 0.02, 1.0  # a waiting job looks ever less often
REPORT_EVERY_S = 60.0
IDLE_LOOKS = 3  # looks at which an earlier job did not take its GPUs before it is passed over

Say = Callable[[str], None]


class Lease:
    """GPUs that this process has, and every process that inherits `fds`.

    Args:
        granted: The GPUs.
        need: What was asked for.
        others_bytes: Memory that processes of other people use there.
        fds: Descriptors of the locked files; the lease lasts while a process has one of them open.
        folder: The folder of the queue.
    """

    def __init__(
        self, granted: list[Gpu], need: Need, others_bytes: int, fds: list[int], folder: Path
    ):
        self.gpus = granted
        self.need = need
        self.others_bytes = others_bytes
        self.fds = fds
        self._folder = folder

    @property
    def shared(self) -> bool:
        """Whether other jobs may be on the GPU."""
        return self.need.whole == 0

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that tell the job its GPUs.

        RANKWISE_CARD is the lease as JSON; the job stores it in its result.
        """
        uuids = [gpu.uuid for gpu in self.gpus]
        is_idle = self.others_bytes <= IDLE_BYTES
        record = {
            "uuids": uuids,
            "shared": self.shared,
            "others_bytes": 0 if is_idle else self.others_bytes,
        }
        if self.shared:
            record["share_bytes"] = self.need.memory_bytes
        return {"CUDA_VISIBLE_DEVICES": ",".join(uuids), "RANKWISE_CARD": json.dumps(record)}

    def release(self) -> None:
        """End this process's part in the lease. Processes that inherited it keep the GPUs."""
        for fd in self.fds:
            os.close(fd)
        # The job has ended well, whatever has become of the folder.
        with contextlib.suppress(GpuError, OSError), Queue(self._folder) as queue:
            queue.jobs()  # this removes the files of dead jobs, now ours among them


def take(whole: int, memory_gib: float, say: Say | None = None) -> Lease | None:
    """Wait for GPUs.

    Args:
        whole: Number of whole GPUs; 0 for a share of one.
        memory_gib: Memory of each whole GPU at least, or the size of the share.
        say: Receives one line when the job has to wait, one a minute from then on, and one when it
            has its GPUs; by default they go to the job's log.

    Returns:
        The lease, or None if no GPU is known on this machine.

    Raises:
        GpuError: This machine cannot give what is asked for. The message is one sentence.
    """
    say = say or _print_to_log
    present = gpus.available()
    if not present:
        say("no GPU is known here, so this job takes none")
        return None
    folder = lease_folder()
    try:
        present = _with_usable_files(folder, present, say)
        need = fitting(whole, memory_gib, present)
        with Queue(folder) as queue:
            fd, job = queue.enter(need, {gpu.uuid: gpu.memory_bytes for gpu in present})
        grant = _wait(folder, fd, job, present, say)
    except OSError as error:  # such as a full disk
        raise GpuError(
            f"RANKWISE_LEASES: got {folder}, in which the queue for GPUs fails ({error}); "
            "mend the folder, or name another"
        ) from None
    granted = [gpu for gpu in present if gpu.uuid in grant.uuids]
    say(_describe_start(need, granted, grant.others_bytes))
    return Lease(granted, need, grant.others_bytes, [fd, *grant.fds], folder)


def fitting(whole: int, memory_gib: float, present: list[Gpu]) -> Need:
    """The need that is asked for, checked against the GPUs of this machine.

    If their sizes are unknown, a share becomes a whole GPU.

    Args:
        whole: Number of whole GPUs; 0 for a share of one.
        memory_gib: Memory of each whole GPU at least, or the size of the share.
        present: The GPUs of this machine.

    Raises:
        GpuError: More GPUs, or more memory on one, than there is.
    """
    if not any(gpu.memory_bytes for gpu in present):
        whole, memory_gib = max(whole, 1), 0
    need = Need(whole, int(memory_gib * GIB))
    large_enough = [gpu for gpu in present if gpu.memory_bytes >= need.memory_bytes]
    if len(large_enough) < max(whole, 1):
        raise GpuError(
            f"resources: gpu, gpu_memory_gib: got {_describe_request(whole, memory_gib)}, "
            f"allowed on this machine: {', '.join(map(str, present))}"
        )
    return need


def notes(present: list[Gpu]) -> list[str]:
    """Notes for the user on the GPUs before jobs start.

    Args:
        present: The GPUs of this machine.

    Returns:
        A line for each GPU on which others compute, and one if the GPUs are of several kinds.
    """
    used = gpus.used_bytes(present)
    names = gpus.processes(present)
    sizes = {gpu.uuid: gpu.memory_bytes for gpu in present}
    with Queue(lease_folder()) as queue:
        others = queue.others(sizes, used)
    lines = []
    for gpu in present:
        others_bytes = others.get(gpu.uuid, 0)
        if others_bytes > IDLE_BYTES:
            programs = ", ".join(names[gpu.uuid]) or "no names"
            lines.append(f"{gpu}: others have {others_bytes / GIB:.1f} GiB there; {programs}")
    kinds = list(dict.fromkeys(gpu.name for gpu in present))
    if len(kinds) > 1:
        lines.append(
            f"GPUs of several kinds ({', '.join(kinds)}): times differ; "
            "CUDA_VISIBLE_DEVICES keeps to some of them"
        )
    return lines


def lease_folder() -> Path:
    """The folder of the leases. It is made if it does not exist.

    Raises:
        GpuError: It cannot be made, read or written.
    """
    folder = Path(settings.read("RANKWISE_LEASES"))
    with contextlib.suppress(OSError):  # it exists, or the check below names what is wrong
        folder.mkdir()
        folder.chmod(0o1777)  # whatever the umask
    # A link could lead another user's runs into a folder of the link's owner.
    is_folder = folder.is_dir() and not folder.is_symlink()
    if not is_folder or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        owner = (
            f", which belongs to user {user_name(folder.lstat().st_uid)}"
            if os.path.lexists(folder)
            else ""
        )
        raise GpuError(
            f"RANKWISE_LEASES: got {folder}{owner}, "
            "allowed: a folder that every user of this machine may write (mode 1777)"
        )
    return folder


def _with_usable_files(folder: Path, present: list[Gpu], say: Say) -> list[Gpu]:
    """The GPUs whose files in the folder can be locked.

    Raises:
        GpuError: There is none; the sentence names the file of one.
    """
    uuids, refusals = usable(folder, [gpu.uuid for gpu in present])
    if not uuids:
        raise refusals[0]
    for refusal in refusals:
        say(f"a GPU is left out: {refusal}")
    return [gpu for gpu in present if gpu.uuid in uuids]


class IdleAhead:
    """Earlier jobs that wait although they could have had their GPUs for a while.

    Such a job was stopped (SIGSTOP), or another user wrote it only to keep others waiting. It is
    passed over for as long as it does nothing.
    """

    def __init__(self) -> None:
        self._looks: list[frozenset[int]] = []

    def look(self, tickets: frozenset[int]) -> None:
        """Note the jobs that are idle now. Looks are REPORT_EVERY_S apart."""
        self._looks = [*self._looks, tickets][-IDLE_LOOKS:]

    @property
    def passed(self) -> frozenset[int]:
        """Tickets that were idle at each of the last IDLE_LOOKS looks."""
        if len(self._looks) < IDLE_LOOKS:
            return frozenset()
        return frozenset.intersection(*self._looks)


def _wait(folder: Path, fd: int, job: Job, present: list[Gpu], say: Say) -> Grant:
    """Ask the queue again and again until it gives the job its GPUs.

    Raises:
        GpuError: That takes longer than RANKWISE_LEASE_HOURS.
    """
    pause = FIRST_POLL_S
    reported_at = -REPORT_EVERY_S
    idle = IdleAhead()
    hours = longest_wait_hours()
    end = time.monotonic() + 3600 * hours
    while True:
        with Queue(folder) as queue:
            may_be_due = queue.pick(job, {}, passed=idle.passed) is not None
        if may_be_due:
            # nvidia-smi takes its time, so it is not asked while the queue is locked.
            used = gpus.used_bytes(present)
            with Queue(folder) as queue:
                grant = queue.take(fd, job, used, idle.passed)
            if grant:
                return grant
        if time.monotonic() - reported_at >= REPORT_EVERY_S:
            used = gpus.used_bytes(present)
            with Queue(folder) as queue:
                why = queue.why(job)
                idle.look(queue.idle_ahead(job, used))
            say(why)
            reported_at = time.monotonic()
            if reported_at > end:
                raise GpuError(f"RANKWISE_LEASE_HOURS: {why}, for more than {hours:g} hours")
        time.sleep(pause)
        pause = min(2 * pause, LAST_POLL_S)


def longest_wait_hours() -> float:
    """RANKWISE_LEASE_HOURS.

    Raises:
        GpuError: It is no number of hours.
    """
    text = settings.read("RANKWISE_LEASE_HOURS")
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise GpuError(f"RANKWISE_LEASE_HOURS: got {text!r}, allowed: a number of hours above 0")


def _describe_start(need: Need, granted: list[Gpu], others_bytes: int) -> str:
    text = f"runs on {describe(need)}: {', '.join(map(str, granted))}"
    if others_bytes > IDLE_BYTES:
        text += f"; others have {others_bytes / GIB:.1f} GiB there"
    return text


def _describe_request(whole: int, memory_gib: float) -> str:
    if whole == 0:
        return f"{memory_gib:g} GiB of one GPU"
    count = "1 GPU" if whole == 1 else f"{whole} GPUs"
    return f"{count} of at least {memory_gib:g} GiB" if memory_gib > 0 else count


def _print_to_log(text: str) -> None:
    print(f"rankwise: {text}", file=sys.stderr, flush=True)
