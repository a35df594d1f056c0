"""Peaks of one of two real processes: the fixture of test_per_process.py runs this file.

    python rank_peaks.py REQUESTS RESULT

REQUESTS is a JSON file of requests by name. Each is run in two processes that meet through gloo:
under DDP, with the model cut into shares as training cuts it, or under FSDP1. RESULT gets, by name, the peaks of
the first process's CPU allocator.
"""

import functools
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from peft.utils.other import fsdp_auto_wrap_policy
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.nn.parallel import DistributedDataParallel

from rankwise.execution.processes import together
from rankwise.measure.memory.peaks import CpuPeaks, cpu
from rankwise.measure.step import Step
from rankwise.training.distribution import Distributed
from rankwise.training.group import Group

RUNS = 3
FSDP1 = {
    "fsdp1": ShardingStrategy.FULL_SHARD,
    "fsdp1_no_shard": ShardingStrategy.NO_SHARD,
}


class Trained(CpuPeaks):
    """Marks phases, and lets two processes train the model together."""

    def __init__(self, request: dict):
        self.sharding = request["sharding"]
        self.micro_batches = request.get("accumulation_steps", 1)
        self.begun: Counter[str] = Counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Send gradients in the last micro-batch only, as training does."""
        self.begun[name] += 1
        if name.endswith("backward") and self.sharding == "fsdp2":
            self.model.set_requires_gradient_sync(self.begun[name] == self.micro_batches)
        with super().phase(name):
            yield

    def watch(self, model: nn.Module) -> None:
        """Cut the model into shares before its optimizer is built."""
        if self.sharding == "fsdp2":
            self.model = Distributed(model, Accelerator(cpu=True), "fsdp2").model
        if self.sharding in FSDP1:
            self.model = _under_fsdp1(model, FSDP1[self.sharding])

    def built(self, training_step: Step) -> None:
        """Put DDP around the model."""
        super().built(training_step)
        if self.sharding == "ddp":
            training_step.model = DistributedDataParallel(training_step.model)
        if self.sharding in FSDP1:
            training_step.model = self.model


def _under_fsdp1(model: nn.Module, strategy: ShardingStrategy) -> nn.Module:
    """The model under FSDP1, with the units of accelerate: peft's where the base is frozen."""
    layer = next(module for module in model.modules() if isinstance(module, nn.ModuleList))[0]
    if all(param.requires_grad for param in model.parameters()):
        policy = ModuleWrapPolicy({type(layer)})
    else:
        os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] = type(layer).__name__
        policy = fsdp_auto_wrap_policy(model)
    return FullyShardedDataParallel(
        model,
        sharding_strategy=strategy,
        auto_wrap_policy=policy,
        device_id=torch.device("cpu"),
        use_orig_params=True,
    )


def measured(requests: dict[str, dict]) -> dict:
    """The peaks of every request in this process: the lowest of several runs.

    On a busy machine gloo lets go of a gathered layer late, which only adds to a peak.
    """
    torch.set_num_threads(1)
    Group().join("cpu")
    lowest = {}
    for name, request in requests.items():
        runs = [cpu(request, Trained(request)) for _ in range(RUNS)]
        lowest[name] = {key: min(run[key] for run in runs) for key in runs[0]}
    return lowest


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text())
    call = functools.partial(measured, asked)
    Path(sys.argv[2]).write_text(json.dumps(together(call, 2, 1, on_gpu=False)))
