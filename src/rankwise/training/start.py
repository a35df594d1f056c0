"""The start of a run whose method measures it: on training batches, before the base is stored.

Its batches come from a random generator of its own, so the start depends on the seed and on nothing
that training does later. What it cost is in the result, beside the cost of training.

The start is kept in a file beside the checkpoint until the run has a result. A run that resumes
reads it: a second computation could differ in its last bits, and a trained factor would then stand
beside another residual.
"""

import sys
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from rankwise.core import progress, settings, state_seal
from rankwise.core.files import durable_write
from rankwise.data.prepared import Data
from rankwise.methods.parts.base import Method, Start, load_method, set_parameters
from rankwise.training import state_files
from rankwise.training.batches import tokens_of
from rankwise.training.group import Group


class CountedBatches:
    """One epoch of training batches in random order; it counts what is drawn.

    Args:
        data: the encoded splits.
        batch_size: examples a batch.
        seed: of the order.
        device: of the batches.

    Attributes:
        samples: examples drawn.
        tokens: tokens drawn, without padding.
    """

    def __init__(self, data: Data, batch_size: int, seed: int, device: str):
        self.device, self.samples, self.tokens = device, 0, 0
        self._loader = DataLoader(
            data.train,
            batch_size,
            shuffle=True,
            generator=torch.Generator().manual_seed(seed),
            collate_fn=deepcopy(data.collate),  # it may draw, and training draws from its own
        )

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self._loader:
            self.samples += len(batch["input_ids"])
            self.tokens += tokens_of(batch)
            yield {name: values.to(self.device) for name, values in batch.items()}


def start(
    request: dict, base: nn.Module, names: dict, data: Data, file: Path, group: Group
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Start a run: change the base where the method's start does.

    Args:
        request: of the training run.
        base: dense, in fp32, on the CPU; changed in place.
        names: from `models.build.names`.
        data: the encoded splits.
        file: where the start is kept until the run has a result.
        group: the processes of the run. The first one computes the start, the others read it.

    Returns:
        Values of parameters of the adapted model, and what the start cost; both are empty where a
        method has no start of its own.

    Raises:
        Unsupported: the method cannot start so.
    """
    method = load_method(request["method"])
    if type(method).start is Method.start:
        return {}, {}
    saved = _kept(file, group)
    if saved is None and group.is_first:
        progress.doing("computing the start")
        started, cost = _compute(method, request, base, names, data)
        saved = {"base": started.base, "adapted": started.adapted, "cost": cost}
        _keep(saved, file)
    group.wait()
    if saved is None:
        saved, problem = state_files.load(file)
        assert problem is None, problem  # the first process has just written it
    set_parameters(base, saved["base"])
    return saved["adapted"], saved["cost"]


def _compute(
    method: Method, request: dict, base: nn.Module, names: dict, data: Data
) -> tuple[Start, dict[str, float]]:
    """The start with all its values on the CPU, and its cost."""
    device = _device(request["device"])
    seed = request["cell"]["seed"]
    batches = CountedBatches(data, request["schedule"]["batch_size"], seed, device)
    gpus = [] if device == "cpu" else [device]
    began = time.perf_counter()
    with torch.random.fork_rng(gpus), FlopCounterMode(display=False) as counter:
        torch.manual_seed(seed)
        if gpus:
            torch.cuda.reset_peak_memory_stats(device)
        started = method.start(base.to(device), names, batches, request["method"]["weights"])
        base.to("cpu")
    cost = {
        "start_time_s": time.perf_counter() - began,
        "start_flops": counter.get_total_flops(),
        "start_samples": batches.samples,
        "start_tokens": batches.tokens,
    }
    if gpus:
        cost["start_peak_bytes"] = torch.cuda.max_memory_allocated(device)
    on_cpu = ({name: value.cpu() for name, value in part.items()} for part in started)
    return Start(*on_cpu), cost


def _device(wanted: str) -> str:
    """Where training will run: accelerate gives each process its own GPU."""
    if wanted == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{settings.read('LOCAL_RANK')}"


def _kept(file: Path, group: Group) -> dict | None:
    """The start that an earlier process of this run has kept; None if it must be computed.

    A file that is not as it was written is moved aside. The checkpoint goes with it, because its
    factors were trained beside the residual of that start.
    """
    if not group.any(file.is_file()):
        return None
    saved, problem = state_files.load(file)
    if not group.any(problem is not None):
        return saved
    if group.is_first:
        names = [state_seal.move_aside(file)]
        checkpoint = file.with_suffix("").with_suffix(".pt")  # DIGEST.pt of DIGEST.start.pt
        if checkpoint.is_file():
            names.append(state_seal.move_aside(checkpoint))
        line = f"{file}: {problem}; moved aside to {' and '.join(names)}"
        print(f"{line}, and the training starts anew", file=sys.stderr, flush=True)
    group.wait()
    return None


def _keep(saved: dict, file: Path) -> None:
    """Write the file whole or not at all."""
    with durable_write(file) as part, part.open("wb") as stream:
        state_files.save(saved, stream, file)
