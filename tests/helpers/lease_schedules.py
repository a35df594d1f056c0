"""Random schedules of jobs that take cards, with real processes, real locks and real kills; `python tests/helpers/lease_schedules.py --help`.

Every job writes `enter` to one log after it has its cards and `leave` before it lets go; who kills a job writes `kill` before. So
whoever replays the log sees no job on a card that was not there, and none of two that were there together is missed.
A process of its own, small and without threads, so that forks are quick and safe.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from rankwise.execution import gpu_lease

DEADLINE_S = 120


def pool(folder: Path, sizes: list[int]) -> dict[str, int]:
    """Simulated cards of these sizes (GiB), and a folder for their leases."""
    cards = [
        {"uuid": f"SIM-{number}", "name": "simulated", "memory_gib": size}
        for number, size in enumerate(sizes)
    ]
    (folder / "cards.json").write_text(json.dumps(cards))
    os.environ |= {
        "RANKWISE_CARDS": str(folder / "cards.json"),
        "RANKWISE_LEASES": str(folder / "leases"),
        "PATH": "",
    }
    return {card["uuid"]: card["memory_gib"] for card in cards}


def note(log: int, **line: object) -> None:
    os.write(log, json.dumps({"pid": os.getpid(), **line}).encode() + b"\n")


def job(
    log: int,
    chance: random.Random,
    cards: int,
    gib: float,
    start_s: float,
    work_s: float,
    dies: bool,
) -> None:
    """In a fork: come, wait, have, go, or be killed by the kernel in between."""
    time.sleep(start_s)
    note(log, event="ask", cards=cards, gib=gib)
    got = gpu_lease.take(cards, gib, say=lambda text: None)
    note(log, event="enter", uuids=[card.uuid for card in got.cards], cards=cards, gib=gib)
    time.sleep(work_s)
    note(log, event="leave")
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    got.release()


def end_all(log: int, pids: dict) -> None:
    for pid in pids:
        note(log, event="stuck", pid=pid)
        os.kill(pid, signal.SIGKILL)


def run(jobs: list[dict], log: int, chance: random.Random, kills: int = 0) -> list[dict]:
    """Fork the jobs, kill some at random moments, wait for all; the lines of the log, and a `stuck` one for each left over."""
    pids = {}
    for number, one in enumerate(jobs):
        if (pid := os.fork()) == 0:
            status = 1
            try:
                job(log, random.Random(number), **one)
                status = 0
            finally:
                os._exit(status)
        pids[pid] = one
    for victim in chance.sample(sorted(pids), kills):
        time.sleep(chance.uniform(0, 0.003))
        note(log, event="kill", pid=victim)
        os.kill(victim, signal.SIGKILL)
    signal.signal(signal.SIGALRM, lambda *_: end_all(log, pids))
    signal.alarm(DEADLINE_S)
    while pids:
        pid, status = os.waitpid(-1, 0)
        pids.pop(pid)
        note(log, event="end", pid=pid, status=status)
    signal.alarm(0)
    os.lseek(log, 0, os.SEEK_SET)
    return [json.loads(line) for line in Path(f"/proc/self/fd/{log}").read_text().splitlines()]


def violations(lines: list[dict], sizes: dict[str, int]) -> tuple[list[str], int]:
    """What went wrong in a log, and how many jobs were together on one card at most."""
    there: dict[int, dict] = {}
    found, most, gone = [], 0, set()
    for line in lines:
        pid, event = line["pid"], line["event"]
        if event == "kill":
            gone.add(pid)
        if event in ("kill", "leave"):
            there.pop(pid, None)
        if event == "stuck" or (event == "end" and line["status"] not in (0, signal.SIGKILL)):
            found.append(f"job {pid}: {event} {line.get('status', '')}")
        if event == "enter" and pid not in gone:
            there[pid] = line
            if len(line["uuids"]) != max(line["cards"], 1):
                found.append(f"{line} has other cards than it asked for")
        for uuid, size in sizes.items():
            on = [one for one in there.values() if uuid in one["uuids"]]
            whole, shares = (
                [one for one in on if one["cards"]],
                [one["gib"] for one in on if not one["cards"]],
            )
            most = max(most, len(on))
            if len(whole) > 1 or (whole and shares) or sum(shares) > size:
                found.append(f"{uuid} of {size} GiB: {on}")
    asked = {line["pid"] for line in lines if line["event"] == "ask"} - gone
    served = {line["pid"] for line in lines if line["event"] == "enter"}
    return [*found, *(f"job {pid} was never served" for pid in asked - served)], most


def schedule(cards: int, seed: int) -> list[str]:
    """One random schedule on so many cards: what went wrong."""
    chance = random.Random(f"{cards}.{seed}")
    with tempfile.TemporaryDirectory() as scratch:
        sizes = pool(Path(scratch), [chance.choice([8, 16, 24]) for _ in range(cards)])
        jobs = []
        for _ in range(chance.randint(3, 8)):
            whole = chance.choice([0, 0, 1, 1, 1, 2])
            gib = 0 if whole else round(chance.uniform(0.5, max(sizes.values())), 2)
            times = {"start_s": chance.uniform(0, 0.004), "work_s": chance.uniform(0, 0.004)}
            jobs.append({"cards": whole, "gib": gib, **times, "dies": chance.random() < 0.15})
        log = os.open(scratch, os.O_TMPFILE | os.O_RDWR | os.O_APPEND)
        found, _ = violations(run(jobs, log, chance, kills=chance.randint(0, 3)), sizes)
        os.close(log)
    return [f"schedule {seed} on {cards} cards: {text}" for text in found]


def makespan(cards: int, jobs: int, gib: float, size: int, work_s: float) -> tuple[float, int]:
    """Seconds that equal jobs take, with whole cards (`gib` 0) or shares of cards of `size` GiB; how many one card had at once."""
    with tempfile.TemporaryDirectory() as scratch:
        sizes = pool(Path(scratch), [size] * cards)
        log = os.open(scratch, os.O_TMPFILE | os.O_RDWR | os.O_APPEND)
        one = {"cards": int(gib == 0), "gib": gib, "start_s": 0, "work_s": work_s, "dies": False}
        start = time.perf_counter()
        lines = run([one] * jobs, log, random.Random(0))
        seconds = time.perf_counter() - start
        found, most = violations(lines, sizes)
        os.close(log)
    assert not found, found
    return seconds, most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cards", type=int, required=True)
    parser.add_argument(
        "--schedules",
        type=int,
        default=0,
        help="random schedules; prints a line for each thing that went wrong",
    )
    parser.add_argument(
        "--makespan",
        type=int,
        default=0,
        help="so many jobs, each with a card and packed; prints JSON",
    )
    given = parser.parse_args()
    gpu_lease.FIRST_POLL_S, gpu_lease.POLL_S = 0.002, 0.008
    for seed in range(given.schedules):
        for text in schedule(given.cards, seed):
            print(text)
    if given.makespan:
        parts = {
            name: makespan(given.cards, given.makespan, gib, 8, 0.2)
            for name, gib in (("serial", 0), ("packed", 1.5))
        }
        print(
            json.dumps(
                {
                    name: {"seconds": seconds, "together": most}
                    for name, (seconds, most) in parts.items()
                }
            )
        )


if __name__ == "__main__":
    main()
