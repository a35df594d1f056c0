"""Where a training stands, in a file until its result is there: what was stopped goes on from there, to the bit.

Written when the process is told to stop (SIGTERM: by SLURM before it preempts a job or ends its time, by forks.py after Ctrl-C;
SIGINT where the job runs alone), and every EVERY_S seconds, for a machine may be lost without a word. The file's name is the
digest of the request, so a training that would come out otherwise never reads it. Of the model it has what training changes;
the rest is made again, as it was.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from rankwise.core import paths, provenance
from rankwise.models import storage

EVERY_S = 600
SIGNALS = (signal.SIGTERM, signal.SIGINT)
STATUS = 128 + signal.SIGTERM  # as a shell tells of a process that SIGTERM ended


class Stopped(SystemExit):
    """The process was told to stop, and has kept what it can."""


class Checkpoint:
    """The file of one training. Entered, SIGNALS ask for a stop and no longer are one; left with a result, the file is gone."""

    def __init__(self, request: dict):
        self.file = paths.checkpoint(provenance.digest(request))

    def __enter__(self) -> "Checkpoint":
        self.asked, self.last = False, time.monotonic()
        self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is None:
            self.file.unlink(missing_ok=True)

    def _ask(self, number: int, _frame: object) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt  # somebody will not wait
        self.asked = True

    def check(self) -> None:
        """Between two batches.

        Raises:
            Stopped: the process was told to.
        """
        if self.asked:
            raise Stopped(STATUS)

    def due(self) -> bool:
        """Whether the last one is old."""
        return time.monotonic() - self.last >= EVERY_S

    def save(self, state: dict) -> None:
        """Replace the file, when the new one is on the disk. `state` holds tensors, numbers, texts, and containers of them."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        try:
            with part.open("wb") as stream:
                torch.save(state, stream)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(self.file)
        finally:
            part.unlink(missing_ok=True)
        self.last = time.monotonic()
        print(
            f"{self.file}: kept after update {state['counts']['updates']}",
            file=sys.stderr,
            flush=True,
        )

    def load(self) -> dict | None:
        """What was saved, on the CPU; None if this training has not begun."""
        if not self.file.is_file():
            return None
        state = torch.load(self.file, map_location="cpu", weights_only=True)
        print(
            f"{self.file}: goes on after update {state['counts']['updates']}",
            file=sys.stderr,
            flush=True,
        )
        return state


class Batches:
    """The batches of a loader, epoch after epoch, from a `place` on: that of another run, which then has the same to come."""

    def __init__(
        self, loader: Iterable[dict], generators: list[torch.Generator], place: dict | None
    ):
        """`generators`: all that the loader and its collate draw from, as they are where an epoch begins."""
        self.loader, self.generators, self.place = (
            loader,
            generators,
            place or {"batches": 0, "generators": []},
        )
        self._seen = self.place["batches"]
        for generator, state in zip(generators, self.place["generators"], strict=False):
            generator.set_state(state)

    def epoch(self) -> Iterator[dict]:
        """Those that are left of an epoch; what was seen is drawn again, for the draws that follow depend on it."""
        seen, self._seen = self._seen, 0
        self.place = {
            "batches": 0,
            "generators": [generator.get_state() for generator in self.generators],
        }
        for batch in self.loader:
            self.place["batches"] += 1
            if self.place["batches"] > seen:
                yield batch


def changing(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training changes: parameters that train, and buffers."""
    frozen = {name for name, param in model.named_parameters() if not param.requires_grad}
    return {name: value for name, value in storage.learnt(model).items() if name not in frozen}


def draws() -> dict:
    """The states of torch's own generators."""
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def draw_on(states: dict) -> None:
    """Let them go on from `states`, as `draws` gave them."""
    torch.set_rng_state(states["cpu"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
