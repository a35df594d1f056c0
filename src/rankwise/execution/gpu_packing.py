"""Which card a job gets: one rule for all, worked out anew from what is held and who waits.

A job takes whole cards, or so many bytes of one. Bytes go to the card with the most room, for an idle card helps nobody. Jobs
are served in the order in which they came. One that cannot be served yet closes the card that it will most likely get: nobody
who came later enters it, so it drains, while other cards go on being filled. Whoever has been passed by too many closes every
card. Nothing is read or locked here (lease.py does), so that the rule can be tested by itself. Standard library only.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Need(NamedTuple):
    """`cards` whole ones, each of at least `memory_bytes`; or, where `cards` is 0, `memory_bytes` of one."""

    cards: int
    memory_bytes: int


class Held(NamedTuple):
    """What a job has."""

    need: Need
    uuids: tuple[str, ...]


class Waiting(NamedTuple):
    """A job that came earlier: the cards that it may use, and whether it has been passed by too many."""

    need: Need
    uuids: tuple[str, ...]
    impatient: bool


class Room:
    """What is free on each card."""

    def __init__(self, sizes: Mapping[str, int], held: Iterable[Held], others: Mapping[str, int]):
        self.sizes, self.others = (
            dict(sizes),
            dict(others),
        )  # uuid -> bytes: of the card; that are not ours to give
        self.jobs, self.taken = dict.fromkeys(sizes, 0), dict.fromkeys(sizes, 0)
        self.closed: set[str] = set()
        for one in held:
            self.fill(one.need, [uuid for uuid in one.uuids if uuid in self.sizes])

    def fill(self, need: Need, uuids: Iterable[str]) -> None:
        """The cards are held now."""
        for uuid in uuids:
            self.jobs[uuid] += 1
            self.taken[uuid] += self.sizes[uuid] if need.cards else need.memory_bytes

    def free(self, uuid: str) -> int:
        """Bytes that may still be given."""
        return self.sizes[uuid] - self.taken[uuid] - self.others.get(uuid, 0)

    def pick(self, need: Need, uuids: Iterable[str]) -> tuple[str, ...] | None:
        """The cards among `uuids` that serve the need now; None if none do."""
        open_ = [uuid for uuid in self.suitable(need, uuids) if uuid not in self.closed]
        if need.cards:  # first those on which others have least
            idle = sorted(
                (uuid for uuid in open_ if not self.jobs[uuid]),
                key=lambda uuid: self.others.get(uuid, 0),
            )
            return tuple(idle[: need.cards]) if len(idle) >= need.cards else None
        widest = max(open_, key=self.free, default=None)
        return (widest,) if widest is not None and self.free(widest) >= need.memory_bytes else None

    def suitable(self, need: Need, uuids: Iterable[str]) -> list[str]:
        """The cards that could serve the need if they were empty."""
        return [
            uuid for uuid in uuids if uuid in self.sizes and self.sizes[uuid] >= need.memory_bytes
        ]

    def serve(self, one: Waiting) -> None:
        """Set aside what a job is due that came earlier: its share if it can have it now, else the card that it waits for."""
        found = self.pick(one.need, one.uuids)
        if found:
            self.fill(one.need, found)
        if found and not one.impatient:
            return
        suitable = self.suitable(one.need, one.uuids)
        if one.impatient:
            self.closed |= set(suitable)
            return
        wait = (
            (lambda uuid: (self.jobs[uuid], -self.free(uuid)))
            if one.need.cards
            else (lambda uuid: -self.free(uuid))
        )
        soonest = sorted((uuid for uuid in suitable if uuid not in self.closed), key=wait)
        self.closed |= set(soonest[: max(one.need.cards, 1)])
