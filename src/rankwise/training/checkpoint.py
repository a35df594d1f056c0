"""The checkpoint of an unfinished training run. A resumed run gives the same result to the bit.

A checkpoint is written when the process is told to stop, and every `SAVE_EVERY_S` seconds because a
machine may be lost without warning. These signals tell a run to stop: SIGTERM, which SLURM sends
before it preempts a job or ends its time, and which our job server sends after Ctrl-C; and SIGINT,
where the job runs in the foreground.

In a job, the file stays until the run's result is on the disk, and the job removes it
(`execution/job.py`). So a run that is killed while its result is written, or that finds a full disk
there, resumes. If a checkpoint cannot be written because the disk is full, the log says so, the
training goes on, and the earlier checkpoint stays.

The file is named after the digest of the run's request. A run that would give another result (other
settings, data or source code) has another digest, so it never reads this file. Of the model, the
file holds only what training changes; the frozen base is built again from the prepared input.
Its content is checked against the digest at its end before it is used (`state_files.py`).
"""

import signal
import sys
import time

import torch
from torch import Tensor, nn

from rankwise.core import paths, progress, provenance, state_seal
from rankwise.core.files import CannotWrite, durable_write
from rankwise.models import storage
from rankwise.optim.parts.waiting import trains
from rankwise.training import state_files
from rankwise.training.group import Group

SAVE_EVERY_S = 600
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOPPED_EXIT_STATUS = 128 + signal.SIGTERM  # how a shell reports a process that SIGTERM ended


class Stopped(SystemExit):
    """The process was told to stop. What can be kept is in the checkpoint."""


class Checkpoint:
    """The checkpoint file of one training run, and the run's reaction to stop signals.

    Use it as a context manager around the run. Inside, a stop signal only sets a flag, which the
    training loop reads between two batches (`check`). When the run ends with an exception, the file
    stays. When it ends with a result, the file is deleted, but in a job only after that result is
    written.

    Args:
        request: The run's request; its digest names the file.

    Attributes:
        group: The processes of the run. They share the file, which holds the random states of each.
    """

    def __init__(self, request: dict):
        self.group = Group()
        self.digest = provenance.digest(request)
        self.file = paths.checkpoint(self.digest)
        self.start_file = paths.measured_start(self.digest)  # written and read by start.py
        self.stop_requested = False
        self.saved_at = time.monotonic()  # or when the run began, if nothing is saved yet
        self._previous_handlers: dict[int, object] = {}

    def __enter__(self) -> "Checkpoint":
        self.stop_requested = False
        self.saved_at = time.monotonic()
        for number in STOP_SIGNALS:
            self._previous_handlers[number] = signal.signal(number, self._request_stop)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        if error is None and self.group.is_first and not progress.is_job():
            paths.remove_checkpoint(self.digest)

    def _request_stop(self, number: int, _frame: object) -> None:
        if self.stop_requested and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C: the user does not want to wait
        self.stop_requested = True

    def check(self) -> None:
        """Stop the run if a stop signal has arrived. Called between two batches.

        All processes of a run call it together, so that they stop at the same place.

        Raises:
            Stopped: A stop signal has arrived, in any process.
        """
        if self.group.any(self.stop_requested):
            raise Stopped(STOPPED_EXIT_STATUS)

    def is_due(self) -> bool:
        """Whether the last checkpoint is older than `SAVE_EVERY_S`, by the clock of any process."""
        return self._is_older_than(SAVE_EVERY_S)

    def is_due_at_end(self) -> bool:
        """Whether a run that has made its last update would lose much without a checkpoint.

        It still evaluates, keeps weights and writes its result, and each of these may fail.
        """
        return self._is_older_than(SAVE_EVERY_S / 10)

    def _is_older_than(self, seconds: float) -> bool:
        return self.group.any(time.monotonic() - self.saved_at >= seconds)

    def save(self, contents: dict) -> None:
        """Replace the file, unless the disk is full.

        The first process writes, and the others wait until the file is there.

        Args:
            contents: Tensors, numbers, texts and containers of them, because `load` refuses other
                types. `contents["update"]` is the number of finished updates.
        """
        if self.group.is_first:
            self._write(contents)
        self.group.wait()
        self.saved_at = time.monotonic()

    def _write(self, contents: dict) -> None:
        try:
            with durable_write(self.file) as part, part.open("wb") as stream:
                state_files.save(contents, stream, self.file)
        except CannotWrite as error:
            stays = "the earlier one stays" if self.file.is_file() else "there is no earlier one"
            self._report(f"warning: {error.strerror}; {stays}; no checkpoint written", contents)
            return
        self._report("checkpoint written", contents)

    def load(self) -> dict | None:
        """The saved contents with all tensors on the CPU, or None if there is no checkpoint.

        A file that is not as it was written is moved aside, so the run starts anew. All processes
        of a run decide this together.
        """
        if not self.group.any(self.file.is_file()):
            return None
        contents, problem = state_files.load(self.file)
        if self.group.any(problem is not None):
            if self.group.is_first:
                aside = state_seal.move_aside(self.file)
                self._say(f"{problem}; moved aside to {aside}, and the training starts anew")
            self.group.wait()
            return None
        self._report("resumed", contents)
        return contents

    def _report(self, event: str, contents: dict) -> None:
        if self.group.is_first:
            self._say(f"{event} after update {contents['update']}")

    def _say(self, text: str) -> None:
        print(f"{self.file}: {text}", file=sys.stderr, flush=True)


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """What training changes in a model: its trainable parameters and its buffers, by name."""
    frozen = set()
    for name, param in model.named_parameters():
        if not trains(param):
            frozen.add(name)
    state = storage.learnt(model)
    return {name: value for name, value in state.items() if name not in frozen}


def random_states() -> dict:
    """The states of torch's global generators: of the CPU, and of this process's GPU if it has one.

    Each of several processes has states of its own.
    """
    # To ask for the GPU's state would start CUDA in a process that trains on the CPU.
    gpu_state = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return {"cpu": torch.get_rng_state(), "cuda": gpu_state}


def restore_random_states(states: dict) -> None:
    """Set torch's global generators to `states`, as `random_states` returned them."""
    torch.set_rng_state(states["cpu"])
    if states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"])
