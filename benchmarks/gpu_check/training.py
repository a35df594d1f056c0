"""A training by Rankwise's own loop on examples in memory, with no prepared inputs.

The model has random weights, drawn with the run's random seed, so two runs of a request start
alike. A process that imports this module may have a stand-in for `datasets` from then on.
"""

import hashlib
import time
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate.utils import set_seed

from benchmarks.gpu_check import standins
from benchmarks.gpu_check.texts import TOKENIZER, collate, examples

standins.install_datasets()

from rankwise.core import tasks, tracker  # noqa: E402 - these need the stand-in
from rankwise.data.prepared import Data  # noqa: E402
from rankwise.methods.parts.base import adapt, build_optimizer  # noqa: E402
from rankwise.models import build, storage  # noqa: E402
from rankwise.training.checkpoint import Checkpoint, trained_state  # noqa: E402
from rankwise.training.loop import Loop  # noqa: E402

EVALUATED = 16  # examples of both evaluated splits
MARKED_AFTER = 3  # checks between a checkpoint and the marker
PAUSE_S = 0.05  # before each batch after the marker, so that a signal meets a run at work


class Trained(NamedTuple):
    """What a run gave.

    Attributes:
        digest: SHA-256 of all trained tensors, the history and the metrics.
        metrics: Of the result.
        cost: Of the result.
    """

    digest: str
    metrics: dict
    cost: dict


class MarkedCheckpoint(Checkpoint):
    """A checkpoint that writes a marker at a point of the run, for whoever stops it there.

    Args:
        request: The run's.
        marker: The file to write; None for none.
        at: The number of the check after which a checkpoint is written, if `saves`. There is a
            check before each batch of an evaluation and after each update.
        saves: Whether a checkpoint is written without being told to stop.
    """

    def __init__(self, request: dict, marker: Path | None, at: int, saves: bool):
        super().__init__(request)
        self._marker, self._at, self._saves = marker, at, saves
        self._checks = 0

    def check(self) -> None:
        """As a checkpoint does; count, mark and wait."""
        self._checks += 1
        if self._marker and self._checks >= self._at + MARKED_AFTER:
            self._marker.touch()
            time.sleep(PAUSE_S)
        super().check()

    def is_due(self) -> bool:
        """Whether the checkpoint is written now."""
        return self._saves and self._checks == self._at


def train(request: dict, tokens: int, checkpoint: Checkpoint | None = None) -> Trained:
    """Train a model with random weights, or go on with a run that was stopped.

    Args:
        request: Of a training run of a classification.
        tokens: Of the longest text.
        checkpoint: The run's; by default one that writes when the process is told to stop.
    """
    dataset, entry = request["dataset"], request["method"]
    task, seed, classes = dataset["task"], request["cell"]["seed"], len(dataset["classes"])
    torch.set_num_threads(request["cpu_threads"])
    rows = examples(request, tokens)
    data = Data(
        task=tasks.load(task),
        tokenizer=TOKENIZER,
        collate=collate(request),
        train=rows,
        selection=rows[:EVALUATED],
        report=rows[:EVALUATED],
    )
    with checkpoint or Checkpoint(request) as entered:
        set_seed(seed)
        names = build.names(request["model"], task)
        base = build.from_shapes(request["model"], task, classes, "cpu")
        base = storage.store(base, entry["weights"], names)
        method, model = adapt(entry, base, names)
        set_seed(seed)
        tracking = tracker.of_run("gpu_check", request)
        loop = Loop(model, method, data, request["schedule"], request["device"], entered, tracking)
        result = loop.run(build_optimizer(entry, method, model, names, seed), seed)
    return Trained(_digest(model, result), result["metrics"], result["cost"])


def _digest(model: torch.nn.Module, result: dict) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(trained_state(model).items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    digest.update(repr([result["history"], result["metrics"]]).encode())
    return digest.hexdigest()
