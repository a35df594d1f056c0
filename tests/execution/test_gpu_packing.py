"""The rule by which GPUs are given: one that has room, in turn, and nobody is overtaken by too many."""

import pytest

from rankwise.execution.gpu_packing import Held, Need, Room, Waiting

ALL = ("g0", "g1", "g2")


def room(*sizes: int, held: list[Held] = (), others: dict[str, int] | None = None) -> Room:
    """GPUs g0, g1, ... of these sizes."""
    return Room({f"g{number}": size for number, size in enumerate(sizes)}, held, others or {})


def whole(uuid: str) -> Held:
    return Held(Need(1, 0), (uuid,))


def share(size: int, uuid: str) -> Held:
    return Held(Need(0, size), (uuid,))


@pytest.mark.parametrize(
    ("free", "need", "expected"),
    [
        (room(8, 8), Need(1, 0), ("g0",)),
        (room(8, 8, held=[whole("g0")]), Need(1, 0), ("g1",)),
        (room(8, 8, held=[whole("g0")]), Need(2, 0), None),
        (room(8, 8, 8, held=[whole("g1")]), Need(2, 0), ("g0", "g2")),
        (room(8, 8, others={"g0": 1}), Need(1, 0), ("g1",)),  # where others use least
        (room(8, 24), Need(1, 16), ("g1",)),
        (room(8, 8), Need(0, 5), ("g0",)),
        (room(8, 8, held=[share(5, "g0")]), Need(0, 2), ("g1",)),  # the most room
        (room(8, held=[share(5, "g0")]), Need(0, 3), ("g0",)),
        (room(8, held=[share(5, "g0")]), Need(0, 4), None),
        (room(8, held=[share(5, "g0")]), Need(1, 0), None),
        (room(8, held=[whole("g0")]), Need(0, 1), None),
        (room(8, others={"g0": 5}), Need(0, 4), None),
    ],
)
def test_a_job_gets_a_gpu_that_has_room(
    free: Room, need: Need, expected: tuple[str, ...] | None
) -> None:
    assert free.pick(need, ALL) == expected


def test_a_gpu_that_an_earlier_job_waits_for_is_closed_and_the_others_are_not() -> None:
    """A whole GPU is waited for where fewest jobs run; later small jobs go on elsewhere."""
    free = room(8, 8, held=[share(1, "g0"), share(1, "g1"), share(1, "g1")])
    free.serve(Waiting(Need(1, 0), ALL, impatient=False))
    assert free.pick(Need(0, 1), ALL) == ("g1",)
    assert free.pick(Need(0, 1), ("g0",)) is None


def test_an_impatient_job_closes_every_gpu() -> None:
    free = room(8, 8, held=[share(1, "g0"), share(1, "g1")])
    free.serve(Waiting(Need(1, 0), ALL, impatient=True))
    assert free.pick(Need(0, 1), ALL) is None


def test_an_earlier_job_has_its_share_before_it_asks_again() -> None:
    free = room(8)
    free.serve(Waiting(Need(0, 5), ALL, impatient=False))
    assert free.pick(Need(0, 4), ALL) is None
    assert free.pick(Need(0, 3), ALL) == ("g0",)
