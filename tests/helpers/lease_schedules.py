"""Random schedules of jobs that lease GPUs, with real processes, real locks and real kills.

    python tests/helpers/lease_schedules.py --help

Every job writes `enter` to a log after it has its GPUs, and `leave` before it gives them back. Whoever
kills a job writes `kill` before. A replay of the log therefore sees no job on a GPU on which it was
not, and misses no two jobs that were on one GPU together.

The jobs are forks of this process. It is a process of its own, small and without threads, so that
forks are quick and safe.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))
sys.path.insert(0, str(TESTS.parent / "src"))

from helpers.simulated_gpus import simulate  # noqa: E402 - found by the lines above
from rankwise.execution import gpu_lease  # noqa: E402

DEADLINE_S = 120


@contextmanager
def simulated(sizes_gib: list[int]) -> Iterator[tuple[dict[str, int], int]]:
    """Simulated GPUs. Gives their sizes (UUID -> GiB), and the descriptor of an empty log."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {**simulate(Path(folder), *sizes_gib), "PATH": ""}
        log = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_APPEND)
        yield {f"SIM-{number}": size for number, size in enumerate(sizes_gib)}, log
        os.close(log)


def note(log: int, **line: object) -> None:
    """Append a line. One write of an appended file is not mixed with those of other processes."""
    os.write(log, json.dumps({"pid": os.getpid(), **line}).encode() + b"\n")


def run_job(log: int, whole: int, gib: float, start_s: float, work_s: float, dies: bool) -> None:
    """In a fork: come, wait for GPUs, have them, and go or die."""
    time.sleep(start_s)
    note(log, event="ask", whole=whole, gib=gib)
    lease = gpu_lease.take(whole, gib, say=lambda text: None)
    note(log, event="enter", uuids=[gpu.uuid for gpu in lease.gpus], whole=whole, gib=gib)
    time.sleep(work_s)
    note(log, event="leave")
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    lease.release()


def fork_job(log: int, job: dict) -> int:
    """The process number of a fork that runs the job."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        run_job(log, **job)
        status = 0
    finally:
        os._exit(status)


def kill_stuck(log: int, pids: set[int]) -> None:
    for pid in pids:
        note(log, event="stuck", pid=pid)
        os.kill(pid, signal.SIGKILL)


def run_jobs(jobs: list[dict], log: int, chance: random.Random, kills: int = 0) -> list[dict]:
    """Fork the jobs, kill some at random moments, and wait for all.

    Returns:
        The lines of the log; a job that does not end in time has a line `stuck`.
    """
    pids = {fork_job(log, job) for job in jobs}
    for victim in chance.sample(sorted(pids), kills):
        time.sleep(chance.uniform(0, 0.003))
        note(log, event="kill", pid=victim)
        os.kill(victim, signal.SIGKILL)
    signal.signal(signal.SIGALRM, lambda *_: kill_stuck(log, pids))
    signal.alarm(DEADLINE_S)
    while pids:
        pid, status = os.waitpid(-1, 0)
        pids.discard(pid)
        note(log, event="end", pid=pid, status=status)
    signal.alarm(0)
    os.lseek(log, 0, os.SEEK_SET)
    return [json.loads(line) for line in Path(f"/proc/self/fd/{log}").read_text().splitlines()]


def violations(lines: list[dict], sizes: dict[str, int]) -> tuple[list[str], int]:
    """Replay a log.

    Returns:
        What went wrong, and the largest number of jobs that were on one GPU together.
    """
    running: dict[int, dict] = {}  # process number -> its line `enter`
    killed: set[int] = set()
    problems: list[str] = []
    most_together = 0
    for line in lines:
        pid, event = line["pid"], line["event"]
        if event == "kill":
            killed.add(pid)
        if event in ("kill", "leave"):
            running.pop(pid, None)
        if event == "stuck" or (event == "end" and line["status"] not in (0, signal.SIGKILL)):
            problems.append(f"job {pid}: {event} {line.get('status', '')}")
        if event == "enter" and pid not in killed:
            running[pid] = line
            if len(line["uuids"]) != max(line["whole"], 1):
                problems.append(f"{line} has other GPUs than it asked for")
        for uuid, size in sizes.items():
            jobs = [job for job in running.values() if uuid in job["uuids"]]
            most_together = max(most_together, len(jobs))
            if not fits(jobs, size):
                problems.append(f"{uuid} of {size} GiB: {jobs}")
    return [*problems, *never_served(lines, killed)], most_together


def fits(jobs: list[dict], size: int) -> bool:
    """Whether these jobs may be on one GPU of `size` GiB together."""
    if any(job["whole"] for job in jobs):
        return len(jobs) == 1
    return sum(job["gib"] for job in jobs) <= size


def never_served(lines: list[dict], killed: set[int]) -> list[str]:
    asked = {line["pid"] for line in lines if line["event"] == "ask"}
    served = {line["pid"] for line in lines if line["event"] == "enter"}
    return [f"job {pid} was never served" for pid in asked - served - killed]


def random_job(chance: random.Random, largest_gib: int) -> dict:
    whole = chance.choice([0, 0, 1, 1, 1, 2])
    return {
        "whole": whole,
        "gib": 0 if whole else round(chance.uniform(0.5, largest_gib), 2),
        "start_s": chance.uniform(0, 0.004),
        "work_s": chance.uniform(0, 0.004),
        "dies": chance.random() < 0.15,
    }


def run_schedule(gpu_count: int, seed: int) -> list[str]:
    """Run one random schedule.

    Returns:
        What went wrong.
    """
    chance = random.Random(f"{gpu_count}.{seed}")
    with simulated([chance.choice([8, 16, 24]) for _ in range(gpu_count)]) as (sizes, log):
        largest_gib = max(sizes.values())
        jobs = [random_job(chance, largest_gib) for _ in range(chance.randint(3, 8))]
        lines = run_jobs(jobs, log, chance, kills=chance.randint(0, 3))
        problems, _ = violations(lines, sizes)
    return [f"schedule {seed} on {gpu_count} GPUs: {text}" for text in problems]


def measure_makespan(gpu_count: int, jobs: int, share_gib: float) -> dict:
    """Run equal jobs of 0.2 s on GPUs of 8 GiB.

    Args:
        gpu_count: Number of GPUs.
        jobs: Number of jobs.
        share_gib: The share that each takes; 0 for a whole GPU.

    Returns:
        `seconds` until all have ended, and `together`, the most jobs on one GPU.
    """
    job = {
        "whole": 0 if share_gib else 1,
        "gib": share_gib,
        "start_s": 0,
        "work_s": 0.2,
        "dies": False,
    }
    with simulated([8] * gpu_count) as (sizes, log):
        start = time.perf_counter()
        lines = run_jobs([job] * jobs, log, random.Random(0))
        seconds = time.perf_counter() - start
        problems, together = violations(lines, sizes)
    assert not problems, problems
    return {"seconds": seconds, "together": together}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpus", type=int, required=True, metavar="N", help="simulated GPUs")
    parser.add_argument(
        "--schedules",
        type=int,
        default=0,
        metavar="N",
        help="run N random schedules and print a line for each thing that goes wrong",
    )
    parser.add_argument(
        "--makespan",
        type=int,
        default=0,
        metavar="N",
        help="run N equal jobs, first each on a whole GPU and then packed, and print JSON",
    )
    arguments = parser.parse_args()
    gpu_lease.FIRST_POLL_S, gpu_lease.LAST_POLL_S = 0.002, 0.008  # these jobs are short
    for seed in range(arguments.schedules):
        for problem in run_schedule(arguments.gpus, seed):
            print(problem)
    if arguments.makespan:
        serial = measure_makespan(arguments.gpus, arguments.makespan, share_gib=0)
        packed = measure_makespan(arguments.gpus, arguments.makespan, share_gib=1.5)
        print(json.dumps({"serial": serial, "packed": packed}))


if __name__ == "__main__":
    main()
