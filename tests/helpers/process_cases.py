"""Trainings in one and in two processes: the fixture of test_processes.py runs this file.

    python process_cases.py FOLDER

All cases run in one process of its own, which forks the processes before it has computed anything.
Cases that end with a result share one pair of processes; each that is stopped has its own. What the
cases give goes to FOLDER.
"""

import functools
import json
import os
import signal
import sys
from pathlib import Path
from unittest import mock

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
)

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.prepared import reset_accelerate
from helpers.windows import examples, scored_examples, tokenizer
from rankwise.core.tracker import of_run
from rankwise.data.prepared import Data
from rankwise.execution.processes import together
from rankwise.methods.parts.base import adapt, build_optimizer
from rankwise.models.tasks import classification, language_modelling
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
    # A language model, whose loss has no logits, on batches by length. Its loss is in fp32, so no Adam.
    "chunked": ("full", {}, {"module": "sgd"}),
    "fp16": ("full", {}, {"module": "sgd"}),
    "fp16_skips": ("full", {}, {"module": "sgd"}),
}
# Of the loss: under the larger one, the first updates are skipped.
FIRST_SCALES = {"fp16": 2.0**10, "fp16_skips": 2.0**22}
LANGUAGE = {"chunked": {"loss": "chunked", "group_by_length": True}}
SHARDED = ("full", "lora", "chunked")
# By name: the sharding, and the checks before which runs are stopped, one after the other: within
# the first evaluation, after an update, and within a later evaluation.
RESUMED = {"lora": ("ddp", (2, 6, 5)), "full": ("fsdp2", (6,))}
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


def sizes() -> dict[str, int]:
    """Those that a configuration of any family takes."""
    return {
        "vocab_size": len(tokenizer()),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }


def model(dropout: float) -> nn.Module:
    """A BERT of two layers of width 16, in fp64: Adam turns noise of fp32 into whole steps."""
    torch.manual_seed(0)
    config = BertConfig(
        **sizes(),
        num_labels=2,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertForSequenceClassification(config).double()


def language_model() -> nn.Module:
    """A Llama of two layers of width 16, in fp64."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**sizes())).double()


def data_of(name: str) -> Data:
    """37 examples to train on, and two overlapping splits of EVALUATED examples."""
    if name not in LANGUAGE:
        task, rows = classification, examples("classification")
        scored = rows
    else:
        task = language_modelling
        blocks = examples("language_modelling")
        # 3 to 6 tokens, so that lengths differ.
        rows = [{"input_ids": x["input_ids"][: 3 + n % 4]} for n, x in enumerate(blocks)]
        scored = scored_examples("language_modelling")
    collate = task.Collate(tokenizer(), SEED)
    return Data(task, tokenizer(), collate, rows, scored[:EVALUATED], scored[5 : 5 + EVALUATED])


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
    schedule = {**SCHEDULE, "sharding": sharding, "select": select, **LANGUAGE.get(name, {})}
    dtype = torch.float64
    if name in FIRST_SCALES:
        schedule["precision"], dtype = "fp16", torch.float32  # autocast leaves fp64 alone
    if in_backward:
        schedule["max_gradient_norm"] = None
    data = data_of(name)
    reset_accelerate()
    request = {"name": name, "sharding": sharding, "dropout": dropout}
    with Checkpoint(request) as checkpoint:
        if stop_at and checkpoint.group.is_first:
            _stop_before(checkpoint, stop_at)
        torch.manual_seed(SEED)
        names = {**NAMES, "task": data.task.__name__.rpartition(".")[2]}
        base = language_model() if name in LANGUAGE else model(dropout)
        method, adapted = adapt(entry, base, names)
        adapted = adapted.to(dtype)
        torch.manual_seed(SEED + checkpoint.group.index)  # dropout may differ
        scaler = functools.partial(torch.amp.GradScaler, init_scale=FIRST_SCALES.get(name, 1.0))
        with mock.patch.object(torch.amp, "GradScaler", scaler):
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


def save_each(calls: dict[Path, functools.partial]) -> dict:
    """Make calls in turn, and save what each gives in this process, in a folder of the call's own."""
    for folder, call in calls.items():
        folder.mkdir(exist_ok=True)
        file = folder / f"{os.environ.get('RANK', 'single')}.json"
        file.write_text(json.dumps(call()))
    return {}


def in_two(calls: dict[Path, functools.partial]) -> int:
    """Make calls in two processes; return the exit status."""
    try:
        together(functools.partial(save_each, calls), 2, 1, on_gpu=False)
    except SystemExit as end:
        return end.code
    return 0


def main(folder: Path) -> None:
    os.chdir(folder)
    whole = {folder / f"{name} ddp": functools.partial(train, name) for name in METHODS}
    for name in SHARDED:
        whole[folder / f"{name} fsdp2"] = functools.partial(train, name, sharding="fsdp2")
    resumed = {}
    for name, (sharding, _) in RESUMED.items():
        options = {"sharding": sharding, "dropout": 0.3, "select": "best"}
        resumed[name] = functools.partial(train, name, **options)
        whole[folder / f"{name} whole"] = resumed[name]
    status = in_two(whole)
    if status:
        sys.exit(status)
    statuses = {}
    for name, (_, stops) in RESUMED.items():
        place = folder / f"{name} resumed"
        calls = [*(functools.partial(resumed[name], stop_at=stop) for stop in stops), resumed[name]]
        statuses[name] = [in_two({place: call}) for call in calls]
    (folder / "statuses.json").write_text(json.dumps(statuses))
    # Last, since torch must not have computed in a process that forks.
    save_each({folder / f"{name} single": functools.partial(train, name) for name in METHODS})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
