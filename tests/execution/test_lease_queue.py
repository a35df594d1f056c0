"""Jobs are served in turn: nobody is overtaken by too many, and everybody is served."""

import os
import random
from pathlib import Path

import pytest

from rankwise.execution.gpu_packing import Need
from rankwise.execution.lease_queue import PATIENCE, Grant, Job, Queue

Entered = tuple[int, Job]  # the descriptor of a job's file, and what the file says


def enter(folder: Path, need: Need, sizes: dict[str, int]) -> Entered:
    with Queue(folder) as queue:
        return queue.enter(need, sizes)


def take(folder: Path, entered: Entered) -> Grant | None:
    with Queue(folder) as queue:
        return queue.take(*entered, used={})


def end(entered: Entered, grant: Grant) -> None:
    """However a job ends, the kernel closes its files."""
    for fd in (entered[0], *grant.fds):
        os.close(fd)


class Simulation:
    """Jobs that come, ask, end and die at random: all in one process, with the real folder and locks.

    Attributes:
        waiting: Jobs that wait, by ticket.
        running: Jobs that have GPUs, by ticket.
        overtaken: How many later jobs were served before a job, by its ticket.
        allowed: How many may be.
    """

    def __init__(self, folder: Path, chance: random.Random, sizes: dict[str, int]):
        self.folder = folder
        self.chance = chance
        self.sizes = sizes
        self.waiting: dict[int, Entered] = {}
        self.running: dict[int, tuple[Entered, Grant]] = {}
        self.overtaken: dict[int, int] = {}
        self.allowed: dict[int, int] = {}

    def come(self) -> None:
        whole = min(self.chance.choice([0, 0, 0, 1, 1, 2]), len(self.sizes))
        need = Need(whole, 0 if whole else self.chance.randint(1, max(self.sizes.values())))
        entered = enter(self.folder, need, self.sizes)
        ticket = entered[1].ticket
        self.allowed[ticket] = PATIENCE + len(self.waiting)
        self.overtaken[ticket] = 0
        self.waiting[ticket] = entered

    def ask(self) -> None:
        ticket = self.chance.choice(sorted(self.waiting))
        grant = take(self.folder, self.waiting[ticket])
        if grant is None:
            return
        self.running[ticket] = (self.waiting.pop(ticket), grant)
        for other in self.waiting:
            if other < ticket:
                self.overtaken[other] += 1

    def end(self) -> None:
        ticket = self.chance.choice(sorted(self.running))
        end(*self.running.pop(ticket))

    def die_waiting(self) -> None:
        ticket = self.chance.choice(sorted(self.waiting))
        os.close(self.waiting.pop(ticket)[0])

    def step(self) -> None:
        """One random event, of those that are possible now."""
        events = []
        if len(self.waiting) < 10:
            events.append(self.come)
        if self.waiting:
            events += [self.ask] * 4
        if self.running:
            events.append(self.end)
        if len(self.waiting) > 8:
            events.append(self.die_waiting)
        self.chance.choice(events)()
        self.check()

    def drain(self) -> None:
        """Nobody comes any more: jobs ask and end until all are served."""
        for _ in range(2000):
            if not self.waiting:
                break
            events = [self.ask] * 3
            if self.running:
                events.append(self.end)
            self.chance.choice(events)()
            self.check()
        assert not self.waiting
        while self.running:
            self.end()

    def check(self) -> None:
        for uuid, size in self.sizes.items():
            grants = [(job.need, grant) for (_, job), grant in self.running.values()]
            needs = [need for need, grant in grants if uuid in grant.uuids]
            if any(need.whole for need in needs):
                assert len(needs) == 1
            assert sum(need.memory_bytes for need in needs) <= size
        for ticket, count in self.overtaken.items():
            assert count <= self.allowed[ticket]


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))]
)
@pytest.mark.parametrize("gpu_count", [1, 2, 4])
def test_nobody_is_overtaken_by_too_many_and_everybody_is_served(
    gpu_count: int, seed: int, tmp_path: Path
) -> None:
    chance = random.Random(f"{gpu_count}.{seed}")
    sizes = {f"g{number}": chance.randint(4, 12) for number in range(gpu_count)}
    simulation = Simulation(tmp_path, chance, sizes)
    for _ in range(150):
        simulation.step()
    simulation.drain()


def test_a_whole_gpu_is_had_while_small_jobs_keep_coming(tmp_path: Path) -> None:
    """Each small job that ends is followed by a later one, so no GPU would be empty by itself."""
    sizes = {"g0": 8, "g1": 8}
    running: list[tuple[Entered, Grant]] = []
    for _ in range(4):
        small = enter(tmp_path, Need(0, 4), sizes)
        grant = take(tmp_path, small)
        assert grant
        running.append((small, grant))
    large = enter(tmp_path, Need(1, 0), sizes)
    later = [enter(tmp_path, Need(0, 4), sizes) for _ in range(40)]
    overtaking = 0
    while take(tmp_path, large) is None:
        end(*running.pop(0))
        for small in list(later):
            grant = take(tmp_path, small)
            if grant:
                later.remove(small)
                running.append((small, grant))
                overtaking += 1
    assert overtaking <= 4
