"""Latency and FLOPs of a forward pass without gradients, by batch size and length, merged and not.

The model has random weights, which change neither time nor FLOPs. A batch is warmed up and timed in
rounds. Each round goes through all batches, so that a drift of the machine meets each of them.
FLOPs are of that very batch, counted on the meta device with eager attention, whose products the
counter sees (2 for each multiply-add; matrix products only).

Where merging changes no module (full fine-tuning, a head alone) there is one model, and its rows
are not merged. A quantized base becomes dense in fp32 when something is merged into it, so its
merged rows are those of a dense model.
"""

from collections.abc import Iterator
from contextlib import suppress
from itertools import product

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rankwise.core.errors import Unsupported
from rankwise.measure.batch import inputs, meta_batch, tokens_a_sample
from rankwise.measure.speed.meters import Watch, device_name
from rankwise.measure.speed.timing import (
    PROCESSES,
    Clock,
    in_processes,
    ready,
    repeats,
    spread,
)
from rankwise.measure.step import adapted
from rankwise.methods.parts.base import Method, adapt
from rankwise.models import build, experts, memory_errors

WARMUP = 3  # passes before a round, at most
ROUNDS = 3
REPEATS = 12  # passes of a round, at most
ROUND_S = 0.5  # aim of a batch's warm-up, and of its passes, in a round; a slower pass runs once
Batch = tuple[int, int]  # samples, tokens per sample
Key = tuple[bool, Batch]  # whether merged, batch
Times = list[float] | dict  # seconds of each pass, or the status and reason why there are none


def forward(request: dict, processes: int = PROCESSES) -> dict:
    """Time a request's forward passes in several processes.

    Args:
        request: A profile's request, with `batch_sizes` and `lengths_tokens`.
        processes: How many processes measure, one after the other; 1 measures in this process.

    Returns:
        A result with a row for each batch size, length and state (merged or not): median and
        quartiles over all processes; or status `unsupported` or `out_of_memory` with the reason.

    Raises:
        RuntimeError: The device is not there, or a measuring process ended without an answer.
    """
    device = ready(request)
    measured = in_processes(rehearse, _measured, request, processes)
    for result in measured:
        if "status" in result:
            return {**result, "device": device}
    rows = []
    for key, flops in measured[0]["flops_by_key"].items():
        times_by_process = [result["times_by_key"][key] for result in measured]
        rows.append(_row(key, times_by_process, flops, request["shapes"]["task"]))
    cost = {"taint": joined_taints(measured), "device_name": device_name(device)}
    return {"rows": rows, "metrics": {"processes": processes}, "cost": cost, "device": device}


def joined_taints(measured: list[dict]) -> str:
    """The taints of all processes, each once."""
    reasons: dict[str, None] = {}  # a dict keeps the order
    for result in measured:
        reasons |= dict.fromkeys(result["taint"])
    return "; ".join(reasons)


def _row(key: Key, times_by_process: list[Times], flops: int, task: str) -> dict:
    merged, (batch_size, length) = key
    tokens = tokens_a_sample({"task": task, "sequence_length_tokens": length})
    row = {
        "batch_size": batch_size,
        "sequence_length_tokens": length,
        "merged": merged,
        "forward_flops": flops,
    }
    seconds = []
    for times in times_by_process:
        if isinstance(times, dict):
            return {**row, **times}
        seconds += times
    latency = spread("forward_latency", seconds)
    rate = batch_size / latency["forward_latency_s"]
    return {
        **row,
        **latency,
        "throughput_samples_per_s": rate,
        "throughput_tokens_per_s": rate * tokens,
        "repeats": len(seconds),
    }


# FLOPs on the meta device -----------------------------------------------------------------------


def meta_model(request: dict) -> tuple[Method, nn.Module]:
    """Build the adapted model on the meta device, for counting its products; its base is dense.

    Raises:
        Unsupported: The method cannot train this model; the message is the reason.
    """
    names = build.names(request["model"], request["shapes"]["task"])
    with torch.device("meta"):
        method, model = adapt(request["method"], meta_base_model(request), names)
    method.settle(model)
    return method, model


def meta_base_model(request: dict) -> nn.Module:
    """Build the base model on the meta device, with eager attention."""
    shapes = request["shapes"]
    return build.checked_from_shapes(
        request["model"], shapes["task"], shapes["classes"], "meta", attention="eager"
    )


def check_countable(request: dict) -> None:
    """Check that the products of a request's model can be counted, before anything is timed.

    Raises:
        Unsupported: The model is a mixture of experts, whose products torch's counter does not know
            in fp32.
    """
    if experts.stacked(meta_base_model(request)):
        raise Unsupported(
            "FLOPs of a mixture of experts are not counted: its experts' products are one call, "
            "which torch's counter does not know in fp32"
        )


def rehearse(request: dict) -> None:
    """Import all that measuring needs, without loading weights."""
    with suppress(Unsupported):  # measuring reports it
        meta_model(request)


@torch.no_grad()
def _flops_by_key(request: dict, keys: list[Key]) -> dict[Key, int]:
    """FLOPs of each state and batch.

    A merged model has the base's own modules, so its products are the base's.
    """
    models = {False: meta_model(request)[1].eval(), True: meta_base_model(request).eval()}
    counts = {}
    for merged, (batch_size, length) in keys:
        sizes = {"batch_size": batch_size, "sequence_length_tokens": length}
        batch = meta_batch({**request["shapes"], **sizes}, models[merged])
        with FlopCounterMode(display=False) as counter:
            models[merged](**batch)
        counts[merged, (batch_size, length)] = counter.get_total_flops()
    return counts


# Times ------------------------------------------------------------------------------------------


@torch.no_grad()
def _measured(request: dict) -> dict:
    """Measure in this process.

    Returns:
        `times_by_key`, `flops_by_key` and `taint`; or a status with its reason.
    """
    device = ready(request)
    times_by_key: dict[Key, Times] = {}
    try:
        check_countable(request)
        method, model, _ = adapted(request, device)
        method.settle(model)
        with Watch(device) as watch:
            for merged, state in _states(method, model):
                for batch, times in _rounds(state, request, device, watch).items():
                    times_by_key[merged, batch] = times
    except memory_errors.ERRORS as error:
        return memory_errors.result(error)
    return {
        "times_by_key": times_by_key,
        "flops_by_key": _flops_by_key(request, list(times_by_key)),
        "taint": watch.taint(),
    }


def _states(method: Method, model: nn.Module) -> Iterator[tuple[bool, nn.Module]]:
    """Yield (False, the adapted model) and, where merging changes a module, (True, the merged one).

    Merging uses the adapted model up.
    """
    yield False, model.eval()
    types_before = _module_types(model)
    merged = method.merge(model)
    if merged is not None and _module_types(merged) != types_before:
        yield True, merged.eval()


def _module_types(model: nn.Module) -> list[tuple[str, type]]:
    return [(name, type(module)) for name, module in model.named_modules()]


def _rounds(model: nn.Module, request: dict, device: str, watch: Watch) -> dict[Batch, Times]:
    """Time every batch in each round; a batch that runs out of memory is not tried again."""
    batches = list(product(request["batch_sizes"], request["lengths_tokens"]))
    times: dict[Batch, Times] = {batch: [] for batch in batches}
    for _ in range(ROUNDS):
        for batch in batches:
            if isinstance(times[batch], dict):
                continue
            try:
                times[batch] += _round(model, batch, request["shapes"]["task"], device)
            except memory_errors.ERRORS as error:
                times[batch] = memory_errors.result(error)
            watch.look()
    return times


def _round(model: nn.Module, batch: Batch, task: str, device: str) -> list[float]:
    """Warm up, then return the seconds of some passes."""
    texts = inputs(torch.randint(model.config.vocab_size, batch, device=device), task)
    clock = Clock(device)
    warmup: list[float] = []
    while len(warmup) < WARMUP and sum(warmup) < ROUND_S:
        model(**texts)
        warmup.append(clock.lap())
    seconds = []
    for _ in range(repeats(warmup[-1], ROUND_S, 1, REPEATS)):
        model(**texts)
        seconds.append(clock.lap())
    return seconds
