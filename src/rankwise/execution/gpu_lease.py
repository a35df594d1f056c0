"""Leases: which job may use which card, agreed on among all runs of ours on a machine.

The folder of the locks is /tmp/rankwise-cards, the same for all users, or RANKWISE_LEASES; containers have to share it. It is
no guard against who takes a card without asking: what such a process has there is seen, said, and left to it. Whoever locks a
card's file (flock) keeps the card from us. Standard library only.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rankwise.core import settings
from rankwise.execution.gpu_packing import Need
from rankwise.execution.gpus import GIB, Card, CardError, found, processes, used_bytes
from rankwise.execution.lease_queue import Job, Queue, said

IDLE_BYTES = 2**28  # in use on a card where nobody computes, at most
FIRST_POLL_S, POLL_S, SAY_S = 0.02, 1.0, 60.0


class Lease:
    """Cards that this process has, and whatever process has `fds` too."""

    def __init__(self, cards: list[Card], need: Need, others: int, fds: list[int], folder: Path):
        self.cards, self.need, self.others_bytes, self.fds, self._folder = (
            cards,
            need,
            others,
            fds,
            folder,
        )

    @property
    def shared(self) -> bool:
        """Whether other jobs may be on the card."""
        return not self.need.cards

    @property
    def environment(self) -> dict[str, str]:
        """What the job has to be told: its cards by UUID, and for its result what it had."""
        uuids = [card.uuid for card in self.cards]
        says = {
            "uuids": uuids,
            "shared": self.shared,
            "others_bytes": self.others_bytes * (self.others_bytes > IDLE_BYTES),
        }
        says |= {"share_bytes": self.need.memory_bytes} if self.shared else {}
        return {"CUDA_VISIBLE_DEVICES": ",".join(uuids), "RANKWISE_CARD": json.dumps(says)}

    def release(self) -> None:
        """Let go. A process that inherited the locks and still lives keeps the cards."""
        for fd in self.fds:
            os.close(fd)
        with Queue(self._folder) as queue:
            queue.jobs()  # removes the files of the dead


def take(cards: int, memory_gib: float, say: Callable[[str], None] | None = None) -> Lease | None:
    """Wait for `cards` whole cards, or (where that is 0) for so much memory (GiB) of one; None where no card is known.

    `say` is told one line when a job has to wait, one a minute from then on, and one when it has its card.

    Raises:
        CardError: what is asked for is not on this machine; one sentence.
    """
    say = say or _to_log
    there = found()
    if not there:
        say("no card is known here, so this job takes none")
        return None
    need = fitting(cards, memory_gib, there)
    folder, sizes = lease_folder(), {card.uuid: card.memory_bytes for card in there}
    with Queue(folder) as queue:
        fd, own = queue.enter(need, sizes)
    uuids, others, fds = _wait(folder, fd, own, there, say)
    mine = [card for card in there if card.uuid in uuids]
    beside = f"; others have {others / GIB:.1f} GiB there" if others > IDLE_BYTES else ""
    say(f"runs on {said(need)}: {', '.join(map(str, mine))}{beside}")
    return Lease(mine, need, others, [fd, *fds], folder)


def _wait(
    folder: Path, fd: int, own: Job, there: list[Card], say: Callable
) -> tuple[tuple[str, ...], int, list[int]]:
    pause, last = FIRST_POLL_S, -SAY_S
    while True:
        with Queue(folder) as queue:
            due = queue.pick(own, {})
        if due:
            used = used_bytes(there)  # the driver takes its time: not while everybody waits
            with Queue(folder) as queue:
                if got := queue.take(fd, own, used):
                    return got
        if time.monotonic() - last >= SAY_S:
            with Queue(folder) as queue:
                say(queue.why(own))
            last = time.monotonic()
        time.sleep(pause)
        pause = min(2 * pause, POLL_S)


def fitting(cards: int, memory_gib: float, there: list[Card]) -> Need:
    """What is asked for, checked against the cards that are there. Where their sizes are not known, a share is a whole card.

    Raises:
        CardError: more cards, or more memory on one, than there is.
    """
    if not any(card.memory_bytes for card in there):
        cards, memory_gib = max(cards, 1), 0
    need = Need(cards, int(memory_gib * GIB))
    enough = [card for card in there if card.memory_bytes >= need.memory_bytes]
    if len(enough) < max(cards, 1):
        each = f" of at least {memory_gib:g} GiB" * (memory_gib > 0)
        asked = (
            f"{cards} card{'s' * (cards != 1)}{each}"
            if cards
            else f"{memory_gib:g} GiB of one card"
        )
        raise CardError(
            f"resources: gpu, gpu_memory_gib: got {asked}, allowed on this machine: {', '.join(map(str, there))}"
        )
    return need


def notes(there: list[Card]) -> list[str]:
    """What a person should know of the cards before jobs start: a line for each on which others compute; if they differ."""
    used, names = used_bytes(there), processes(there)
    with Queue(lease_folder()) as queue:
        others = queue.others({card.uuid: card.memory_bytes for card in there}, used)
    busy = [(card, others[card.uuid]) for card in there if others.get(card.uuid, 0) > IDLE_BYTES]
    seen = [
        f"{card}: others have {size / GIB:.1f} GiB there; {', '.join(names[card.uuid]) or 'no names'}"
        for card, size in busy
    ]
    kinds = list(dict.fromkeys(card.name for card in there))
    if len(kinds) > 1:
        seen.append(
            f"cards of several kinds ({', '.join(kinds)}): times differ; CUDA_VISIBLE_DEVICES keeps to some of them"
        )
    return seen


def lease_folder() -> Path:
    """The folder, made if it lacks.

    Raises:
        CardError: it cannot be had; one sentence.
    """
    folder = Path(settings.read("RANKWISE_LEASES"))
    with contextlib.suppress(FileExistsError, OSError):
        folder.mkdir()
        folder.chmod(0o1777)  # whatever the umask
    if (
        folder.is_symlink()
        or not folder.is_dir()
        or not os.access(folder, os.R_OK | os.W_OK | os.X_OK)
    ):
        raise CardError(
            f"RANKWISE_LEASES: got {folder}, allowed: a folder that every user of this machine may write (mode 1777)"
        )
    return folder


def _to_log(text: str) -> None:
    print(f"rankwise: {text}", file=sys.stderr, flush=True)
