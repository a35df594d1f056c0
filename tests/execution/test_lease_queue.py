"""Who is due which card: one that has room, in turn, and nobody is passed by too many."""

import os
import random
from pathlib import Path

import pytest

from rankwise.execution import lease_queue
from rankwise.execution.gpu_packing import Held, Need, Room, Waiting
from rankwise.execution.lease_queue import PATIENCE, Queue

# The rule -------------------------------------------------------------------------------------------------------------


def room(*sizes: int, held: list[Held] = (), others: dict[str, int] | None = None) -> Room:
    return Room({f"c{number}": size for number, size in enumerate(sizes)}, held, others or {})


def whole(*uuids: str, cards: int = 1) -> Held:
    return Held(Need(cards, 0), uuids)


ALL = ("c0", "c1", "c2")


@pytest.mark.parametrize(
    ("free", "need", "due"),
    [
        (room(8, 8), Need(1, 0), ("c0",)),
        (room(8, 8, held=[whole("c0")]), Need(1, 0), ("c1",)),
        (room(8, 8, held=[whole("c0")]), Need(2, 0), None),
        (room(8, 8, 8, held=[whole("c1")]), Need(2, 0), ("c0", "c2")),
        (room(8, 8, others={"c0": 1}), Need(1, 0), ("c1",)),  # where others have least
        (room(8, 24), Need(1, 16), ("c1",)),
        (room(8, 8), Need(0, 5), ("c0",)),
        (room(8, 8, held=[Held(Need(0, 5), ("c0",))]), Need(0, 2), ("c1",)),  # the most room
        (room(8, held=[Held(Need(0, 5), ("c0",))]), Need(0, 3), ("c0",)),
        (room(8, held=[Held(Need(0, 5), ("c0",))]), Need(0, 4), None),
        (room(8, held=[Held(Need(0, 5), ("c0",))]), Need(1, 0), None),
        (room(8, held=[whole("c0")]), Need(0, 1), None),
        (room(8, others={"c0": 5}), Need(0, 4), None),
    ],
)
def test_a_job_is_due_a_card_that_has_room(
    free: Room, need: Need, due: tuple[str, ...] | None
) -> None:
    assert free.pick(need, ALL) == due


def test_a_card_that_somebody_waits_for_is_closed_and_the_others_are_not() -> None:
    """A whole card is waited for where fewest jobs are; small ones that come later go on elsewhere."""
    free = room(
        8, 8, held=[Held(Need(0, 1), ("c0",)), Held(Need(0, 1), ("c1",)), Held(Need(0, 1), ("c1",))]
    )
    free.serve(Waiting(Need(1, 0), ALL, impatient=False))
    assert free.pick(Need(0, 1), ALL) == ("c1",)
    assert free.pick(Need(0, 1), ("c0",)) is None


def test_whoever_was_passed_by_too_many_closes_every_card() -> None:
    free = room(8, 8, held=[Held(Need(0, 1), ("c0",)), Held(Need(0, 1), ("c1",))])
    free.serve(Waiting(Need(1, 0), ALL, impatient=True))
    assert free.pick(Need(0, 1), ALL) is None


def test_who_came_earlier_has_its_share_before_it_asks_again() -> None:
    free = room(8)
    free.serve(Waiting(Need(0, 5), ALL, impatient=False))
    assert free.pick(Need(0, 4), ALL) is None
    assert free.pick(Need(0, 3), ALL) == ("c0",)


# In turn --------------------------------------------------------------------------------------------------------------


class Simulation:
    """Jobs of one process, with the real folder and real locks, that come, ask, end and die at random."""

    def __init__(self, folder: Path, chance: random.Random, sizes: dict[str, int]):
        self.folder, self.chance, self.sizes = folder, chance, sizes
        self.waiting: dict[int, tuple] = {}  # ticket -> descriptor, what its file says
        self.held: dict[int, tuple] = {}  # ticket -> descriptors, need, uuids
        self.passed: dict[int, int] = {}  # ticket -> later jobs that were served first
        self.allowed: dict[int, int] = {}

    def come(self) -> None:
        cards = min(self.chance.choice([0, 0, 0, 1, 1, 2]), len(self.sizes))
        need = Need(cards, 0 if cards else self.chance.randint(1, max(self.sizes.values())))
        with Queue(self.folder) as queue:
            fd, own = queue.enter(need, self.sizes)
        self.allowed[own.ticket] = PATIENCE + len(self.waiting)
        self.waiting[own.ticket], self.passed[own.ticket] = (fd, own), 0

    def ask(self) -> None:
        ticket = self.chance.choice(sorted(self.waiting))
        fd, own = self.waiting[ticket]
        with Queue(self.folder) as queue:
            got = queue.take(fd, own, {})
        if got:
            del self.waiting[ticket]
            self.held[ticket] = ([fd, *got[2]], own.need, got[0])
            for other in self.waiting:
                self.passed[other] += other < ticket

    def end(self) -> None:
        """However it ends, the kernel closes its files."""
        for fd in self.held.pop(self.chance.choice(sorted(self.held)))[0]:
            os.close(fd)

    def die_waiting(self) -> None:
        ticket = self.chance.choice(sorted(self.waiting))
        os.close(self.waiting.pop(ticket)[0])

    def check(self) -> None:
        for uuid, size in self.sizes.items():
            on = [need for _, need, uuids in self.held.values() if uuid in uuids]
            if any(need.cards for need in on):
                assert len(on) == 1
            assert sum(need.memory_bytes for need in on) <= size
        for ticket, passed in self.passed.items():
            assert passed <= self.allowed[ticket]


@pytest.mark.parametrize("number", [1, 2, 4])
def test_nobody_is_passed_by_too_many_and_everybody_is_served(number: int, tmp_path: Path) -> None:
    most = 0
    for seed in range(8):
        folder = tmp_path / str(seed)
        folder.mkdir()
        chance = random.Random(f"{number}.{seed}")
        simulation = Simulation(
            folder, chance, {f"c{i}": chance.randint(4, 12) for i in range(number)}
        )
        simulation.sizes = dict(simulation.sizes) if number > 1 else {"c0": 8}
        for _ in range(150):
            ready = ["come"] * (len(simulation.waiting) < 10) + ["ask"] * 4 * bool(
                simulation.waiting
            )
            ready += ["end"] * bool(simulation.held) + ["die_waiting"] * (
                len(simulation.waiting) > 8
            )
            getattr(simulation, chance.choice(ready))()
            simulation.check()
        for _ in range(2000):  # nobody comes any more
            if not simulation.waiting:
                break
            getattr(simulation, chance.choice(["ask"] * 3 + ["end"] * bool(simulation.held)))()
            simulation.check()
        assert not simulation.waiting
        most = max([most, *simulation.passed.values()])
        while simulation.held:
            simulation.end()
    print(f"{number} cards: passed by {most} at most")


def test_a_whole_card_is_had_while_small_jobs_keep_coming(tmp_path: Path) -> None:
    """Each that ends is replaced by one that came later, so the card would never be empty by itself."""
    simulation = Simulation(tmp_path, random.Random(0), {"c0": 8, "c1": 8})

    def one(need: Need) -> tuple:
        with Queue(tmp_path) as queue:
            return queue.enter(need, simulation.sizes)

    def take(fd: int, own: lease_queue.Job) -> list[int] | None:
        with Queue(tmp_path) as queue:
            got = queue.take(fd, own, {})
        return [fd, *got[2]] if got else None

    small = [take(*one(Need(0, 4))) for _ in range(4)]
    assert all(small)
    large = one(Need(1, 0))
    later = [one(Need(0, 4)) for _ in range(40)]
    started = 0
    while not (got := take(*large)):
        for fd in small.pop(0):
            os.close(fd)
        for waiting in list(later):
            if fds := take(*waiting):
                small.append(fds)
                later.remove(waiting)
                started += 1
    assert got
    assert started <= 4
