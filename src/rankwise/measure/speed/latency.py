"""Latency and FLOPs of a forward pass without gradients: by batch size and length, un-merged and merged.

The model has random weights, which change neither time nor FLOPs. A batch is warmed up and then timed in rounds that go through
all batches, so that a drift of the machine meets each of them. FLOPs are of that very batch, counted on the meta device with
eager attention, whose products the counter sees (2 a multiply-add; matrix products and attention only).

Where merging changes no module (full fine-tuning, a head alone) there is one model, and its rows are the un-merged ones. A
quantized base becomes dense in fp32 when something is merged into it, so its merged rows are those of a dense model.
"""

from collections.abc import Iterator
from contextlib import suppress
from itertools import product

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rankwise.core.errors import Unsupported
from rankwise.measure.batch import meta_batch
from rankwise.measure.speed.meters import Watch, device_name
from rankwise.measure.speed.timing import (
    PROCESSES,
    Clock,
    in_processes,
    out_of_memory,
    ready,
    repeats,
    spread,
)
from rankwise.measure.step import adapted
from rankwise.methods.parts.base import Method, adapt
from rankwise.models import build

WARMUP, ROUNDS, REPEATS = 3, 3, 12  # passes before a round, rounds, passes of a round at most
ROUND_S = (
    0.5  # what a batch's warm-up, and its passes, of a round aim at; a slower pass is taken once
)
Batch = tuple[int, int]  # samples, tokens a sample


def forward(request: dict, processes: int = PROCESSES) -> dict:
    """A row for each batch size, length and state: median and quartiles over all processes.

    Raises:
        RuntimeError: the device is not there.
    """
    device = ready(request)
    found = in_processes(rehearse, _measured, request, processes)
    if failed := next((one for one in found if "status" in one), None):
        return {**failed, "device": device}
    cost = {"taint": "; ".join(dict.fromkeys(reason for one in found for reason in one["taint"]))}
    rows = [
        _row(key, [one["rows"][key] for one in found], found[0]["flops"][key])
        for key in found[0]["rows"]
    ]
    cost["device_name"] = device_name(device)
    return {"rows": rows, "metrics": {"processes": processes}, "cost": cost, "device": device}


def _row(key: tuple[bool, Batch], samples: list[list[float] | dict], flops: int) -> dict:
    merged, (size, length) = key
    row = {
        "batch_size": size,
        "sequence_length_tokens": length,
        "merged": merged,
        "forward_flops": flops,
    }
    if failed := next((one for one in samples if isinstance(one, dict)), None):
        return {**row, **failed}
    seconds = [second for one in samples for second in one]
    times = spread("forward_latency", seconds)
    rate = size / times["forward_latency_s"]
    rates = {"throughput_samples_per_s": rate, "throughput_tokens_per_s": rate * length}
    return {**row, **times, **rates, "repeats": len(seconds)}


def twin(request: dict) -> tuple[Method, nn.Module]:
    """The method, settled, and its model on the meta device, whose products a FLOP counter sees; the base is dense.

    Raises:
        Unsupported: the method cannot do this model, with the reason.
    """
    with torch.device("meta"):
        names = build.names(request["model"], request["shapes"]["task"])
        method, model = adapt(request["method"], base_twin(request), names)
    method.settle(model)
    return method, model


def rehearse(request: dict) -> None:
    """Load all that measuring needs, but no weights."""
    with suppress(Unsupported):  # measuring says so
        twin(request)


def base_twin(request: dict) -> nn.Module:
    """The base model on the meta device, with eager attention."""
    shapes = request["shapes"]
    return build.from_shapes(
        request["model"], shapes["task"], shapes["classes"], "meta", attention="eager"
    )


def _states(method: Method, model: nn.Module) -> Iterator[tuple[bool, nn.Module]]:
    """(merged, model): as adapted, and where merging changes a module, merged. Merging uses the model up."""
    yield False, model.eval()
    before = _modules(model)
    merged = method.merge(model)
    if merged is not None and _modules(merged) != before:
        yield True, merged.eval()


def _modules(model: nn.Module) -> list[tuple[str, type]]:
    return [(name, type(module)) for name, module in model.named_modules()]


def _batches(request: dict) -> list[Batch]:
    return list(product(request["batch_sizes"], request["lengths_tokens"]))


@torch.no_grad()
def _counted(request: dict) -> dict[tuple[bool, Batch], int]:
    """FLOPs by state and batch; a merged model has the base's own modules, so its products are the base's."""
    states, found = ((False, twin(request)[1]), (True, base_twin(request))), {}
    for merged, model in states:
        for size, length in _batches(request):
            with FlopCounterMode(display=False) as counter:
                model.eval()(**meta_batch({"batch_size": size, "sequence_length_tokens": length}))
            found[merged, (size, length)] = counter.get_total_flops()
    return found


@torch.no_grad()
def _measured(request: dict) -> dict:
    """Seconds of each pass, by state and batch, or why a batch has none; FLOPs likewise; and what tainted the times."""
    device, rows = ready(request), {}
    try:
        method, model, _ = adapted(request, device)
        method.settle(model)
        with Watch(device) as watch:
            for merged, state in _states(method, model):
                seconds = _rounds(state, request, device, watch)
                rows |= {(merged, batch): found for batch, found in seconds.items()}
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    except torch.OutOfMemoryError as error:
        return out_of_memory(error)
    return {"rows": rows, "flops": _counted(request), "taint": watch.taint()}


def _rounds(
    model: nn.Module, request: dict, device: str, watch: Watch
) -> dict[Batch, list[float] | dict]:
    found: dict[Batch, list[float] | dict] = {batch: [] for batch in _batches(request)}
    for batch in [batch for _ in range(ROUNDS) for batch in found]:
        if isinstance(found[batch], dict):
            continue
        try:
            found[batch] += _round(model, batch, device)
        except torch.OutOfMemoryError as error:
            found[batch] = out_of_memory(error)
        watch.look()
    return found


def _round(model: nn.Module, batch: Batch, device: str) -> list[float]:
    """Seconds of some passes, after some that are not counted."""
    ids, clock, warm = (
        torch.randint(model.config.vocab_size, batch, device=device),
        Clock(device),
        [],
    )
    while len(warm) < WARMUP and sum(warm) < ROUND_S:
        model(input_ids=ids)
        warm.append(clock.lap())
    seconds = []
    for _ in range(repeats(warm[-1], ROUND_S, 1, REPEATS)):
        model(input_ids=ids)
        seconds.append(clock.lap())
    return seconds
