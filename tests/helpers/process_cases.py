"""Trainings in one and in two processes: the fixture of test_processes.py runs this file.

    python process_cases.py FOLDER

All cases run in one process of its own, which forks those of each case before it has computed
anything. What they give goes to FOLDER.
"""

import functools
import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.prepared import reset_accelerate
from helpers.windows import examples, tokenizer
from rankwise.core.tracker import of_run
from rankwise.data.prepared import Data
from rankwise.execution.processes import together
from rankwise.methods.parts.base import adapt, build_optimizer
from rankwise.models.tasks import classification
from rankwise.training.checkpoint import Checkpoint
from rankwise.training.distribution import own
from rankwise.training.loop import Loop

SEED = 3
NAMES = {
    "task": "classification",
    "hidden_size": 16,
    "modules": {
        "query": {"name": "attention.self.query", "shape": [16, 16]},
        "value": {"name": "attention.self.value", "shape": [16, 16]},
    },
    "head": ["classifier"],
    "new_head": ["classifier"],
}
LORA = {"rank": 2, "alpha": 4, "targets": ("query", "value"), "dropout": 0.0}
RSVD = {"module": "projected_adam", "rank": 2, "projector": "rsvd", "interval_steps": 2}
VLORP = {"module": "projfactor", "rank": 2, "granularity": 2.0, "interval_steps": 2}
ADAMW = {"module": "adamw"}
SHRUNK = {"rank": 4, "targets": ("query", "value"), "residual": "kept", "svt": "shrink"}
# By name: the method with its options, and the optimizer with its own.
METHODS = {
    "full": ("full", {}, ADAMW),
    "lora": ("lora", LORA, ADAMW),
    "rsvd": ("full", {}, RSVD),
    "vlorp": ("full", {}, VLORP),
    "vlorp_released": ("full", {}, {**VLORP, "release": True}),  # averages in its own hooks
    "badam": ("full", {}, {"module": "badam", "interval_steps": 2}),  # switches gradients
    "shrunk": ("weight_reduction", {**SHRUNK, "svt_interval_steps": 2}, ADAMW),  # changes shapes
    "mezo": ("full", {}, {"module": "mezo"}),  # has no gradients
}
SHARDED = ("full", "lora")
RESUMED = {"lora": "ddp", "rsvd": "ddp", "full": "fsdp2"}
SCHEDULE = {
    "batch_size": 8,
    "accumulation_steps": 2,
    "eval_batch_size": 2,
    "updates": 6,
    "epochs": None,
    "evaluate_every_updates": 2,
    "max_gradient_norm": 0.5,
    "precision": "fp32",
    "scheduler": "linear",
    "warmup_fraction": 0.0,
    "select": "last",
}
EVALUATED = 7  # examples, which are 4 batches: an odd one for two processes


def model(dropout: float) -> nn.Module:
    """A BERT of two layers of width 16, in fp64: Adam turns noise of fp32 into whole steps."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer()),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=2,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertForSequenceClassification(config).double()


def train(
    name: str,
    sharding: str = "ddp",
    dropout: float = 0.0,
    select: str = "last",
    stop_at: int = 0,
) -> dict:
    """Train one of METHODS, in as many processes as this is one of.

    Args:
        name: A key of METHODS.
        sharding: As in a schedule.
        dropout: Of the model.
        select: As in a schedule.
        stop_at: The check before which the first process gets a real SIGTERM; 0: none.

    Returns:
        The result, without its cost, and `weights`: every trained parameter as a list.
    """
    torch.set_num_threads(1)
    method_name, options, optimizer_options = METHODS[name]
    entry = {
        "module": method_name,
        "options": options,
        "optimizer": optimizer_options,
        "learning_rate": 1e-2,
        "dense": [],
    }
    in_backward = optimizer_options["module"] == "mezo"
    schedule = {**SCHEDULE, "sharding": sharding, "select": select}
    if in_backward:
        schedule["max_gradient_norm"] = None
    rows = examples("classification")
    collate = classification.Collate(tokenizer(), SEED)
    data = Data(
        classification, tokenizer(), collate, rows, rows[:EVALUATED], rows[5 : 5 + EVALUATED]
    )
    reset_accelerate()
    request = {"name": name, "sharding": sharding, "dropout": dropout}
    with Checkpoint(request) as checkpoint:
        if stop_at and checkpoint.group.is_first:
            _stop_before(checkpoint, stop_at)
        torch.manual_seed(SEED)
        method, adapted = adapt(entry, model(dropout), NAMES)
        adapted = adapted.double()
        torch.manual_seed(SEED + checkpoint.group.index)  # dropout may differ
        loop = Loop(adapted, method, data, schedule, "cpu", checkpoint, of_run("cases", {}))
        optimizer = build_optimizer(entry, method, loop.model, NAMES, SEED)
        result = loop.run(optimizer, SEED)
    result.pop("cost")
    return {**result, "weights": _weights(loop.model), "bases": _bases(optimizer)}


def _stop_before(checkpoint: Checkpoint, number: int) -> None:
    """Let this process signal itself before its check of this number."""
    check, made = checkpoint.check, 0

    def counting() -> None:
        nonlocal made
        made += 1
        if made == number:
            os.kill(os.getpid(), signal.SIGTERM)
        check()

    checkpoint.check = counting


def _weights(trained: nn.Module) -> dict[str, list]:
    return {name: own(param.detach()).tolist() for name, param in trained.named_parameters()}


def _bases(optimizer: torch.optim.Optimizer) -> list:
    return [s["basis"].tolist() for s in optimizer.state.values() if "basis" in s]


def each_saved(call: functools.partial, folder: Path) -> dict:
    """Run a call, and save what it gives in this process, because the parent sees one of them."""
    content = call()
    (folder / f"{os.environ.get('RANK', 'single')}.json").write_text(json.dumps(content))
    return {}


def in_two(name: str, folder: Path, **options: object) -> int:
    """Train in two processes; return the exit status."""
    folder.mkdir(exist_ok=True)
    call = functools.partial(each_saved, functools.partial(train, name, **options), folder)
    try:
        together(call, 2, 1, on_gpu=False)
    except SystemExit as end:
        return end.code
    return 0


def main(folder: Path) -> None:
    os.chdir(folder)
    for name in METHODS:
        in_two(name, folder / f"{name} ddp")
    for name in SHARDED:
        in_two(name, folder / f"{name} fsdp2", sharding="fsdp2")
    statuses = {}
    for name, sharding in RESUMED.items():
        options = {"sharding": sharding, "dropout": 0.3, "select": "best"}
        in_two(name, folder / f"{name} whole", **options)
        # Within the first evaluation, after an update, and within a later evaluation.
        stopped = [
            in_two(name, folder / f"{name} resumed", **options, stop_at=n) for n in (2, 6, 5)
        ]
        statuses[name] = [*stopped, in_two(name, folder / f"{name} resumed", **options)]
    (folder / "statuses.json").write_text(json.dumps(statuses))
    # Last, since torch must not have computed in a process that forks.
    for name in METHODS:
        (folder / f"{name} single").mkdir()
        each_saved(functools.partial(train, name), folder / f"{name} single")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
