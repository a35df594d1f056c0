"""Seconds of a training update by part, and what follows from it.

Real updates run on one batch of random tokens with learning rate 0: each does the same work, and
none can diverge. The first update allocates state and computes the first bases, so it is reported
by itself. Later refreshes (every `interval_steps`) are rarer than the updates timed here. Reading
data is not included. The device is synchronised between parts, which keeps it from running ahead
into the next one.

Utilisation is that of the model's FLOPs (Chowdhery et al. 2022, arXiv 2204.02311, appendix B): the
FLOPs of forward and backward as this method needs them, counted on the meta device without
recomputation, divided by what the device could have done in the same time. That peak is measured in
the same process: the best of a few large square matrix products in the dtype in which the base
multiplies. It is below a vendor's number, so the utilisation is above one that refers to that
number.
"""

import statistics

import torch
from torch.utils.flop_counter import FlopCounterMode

from rankwise.measure.batch import meta_batch, meta_loss, tokens_a_sample
from rankwise.measure.speed.gradient_norms import gradient_norms, total_norm
from rankwise.measure.speed.latency import (
    check_countable,
    joined_taints,
    meta_model,
    rehearse,
)
from rankwise.measure.speed.meters import Watch, device_name
from rankwise.measure.speed.timing import (
    PROCESSES,
    Clock,
    in_processes,
    ready,
    repeats,
    spread,
)
from rankwise.measure.step import Step, profiled_optimizer, step
from rankwise.methods.parts.base import load_method, unreleased
from rankwise.models import build, memory_errors

LEAST, MOST, AIM_S = 3, 50, 2.0  # timed updates of a process, and the seconds they should take
PEAK_PRODUCTS = 4  # matrix products, at most
PEAK_S = 2.0  # after so many seconds no further product is started
PEAK_SIDE = {"cpu": 2048, "cuda": 8192}  # rows and columns of the matrices
PARTS = ("forward", "backward", "optimizer")
FROZEN_NOTE = "nothing trains: forward only"
FORWARD_ONLY_NOTE = (
    "the optimizer steps from two losses: its whole step is in forward's time, "
    "and there is no gradient to take a norm of"
)
FUSED_NOTE = (
    "the optimizer steps inside backward (release): its time is in backward's, "
    "and no gradient stays to take a norm of"
)
GATHERED_NOTE = (
    "gradients are projected and freed inside backward (release): that is in its time, "
    "and none stays to take a norm of"
)


def throughput(request: dict, processes: int = PROCESSES) -> dict:
    """Time a request's training updates in several processes.

    Args:
        request: A profile's request, with `accumulation_steps`.
        processes: How many processes measure, one after the other; 1 measures in this process.

    Returns:
        A result with medians and quartiles over the updates of all processes, and `groups` with the
        gradient norms at the start; or status `unsupported` or `out_of_memory` with the reason.

    Raises:
        RuntimeError: The device is not there, or a measuring process ended without an answer.
    """
    device = ready(request)
    measured = in_processes(rehearse, _measured, request, processes)
    for result in measured:
        if "status" in result:
            return {**result, "device": device}
    first, shapes = measured[0], request["shapes"]
    sizes = {
        "batch_size": shapes["batch_size"],
        "sequence_length_tokens": shapes["sequence_length_tokens"],
        "accumulation_steps": request["accumulation_steps"],
        "model_flops": first["flops"],
        "processes": processes,
    }
    return {
        "metrics": {**sizes, **first["metrics"]},
        "cost": {
            **_cost(measured, sizes, tokens_a_sample(shapes)),
            "device_name": device_name(device),
        },
        "groups": first["groups"],
        "device": device,
    }


def _cost(measured: list[dict], sizes: dict, tokens: int) -> dict:
    """Columns that depend on time, over the updates of all processes.

    A sample has this many `tokens`.
    """
    updates = []
    for result in measured:
        updates += result["updates"]
    times = spread("update_time", [sum(update.values()) for update in updates])
    for part in updates[0]:
        times |= spread(f"{part}_time", [update[part] for update in updates])
    median_s = times["update_time_s"]
    peak = max(result["peak"] for result in measured)
    rate = sizes["batch_size"] * sizes["accumulation_steps"] / median_s
    return {
        **times,
        **_meter_columns(measured),
        "first_update_time_s": statistics.median(result["first_s"] for result in measured),
        "throughput_samples_per_s": rate,
        "throughput_tokens_per_s": rate * tokens,
        "peak_measured_flops_per_s": peak,
        "model_flops_utilisation_fraction": sizes["model_flops"] / (median_s * peak),
        "repeats": len(updates),
    }


def _meter_columns(measured: list[dict]) -> dict:
    """The taint, the share of CPU that others used, and joules per update, where all have them."""
    columns: dict = {"taint": joined_taints(measured)}
    shares = [result["other_cpu"] for result in measured]
    if None not in shares:
        columns["other_cpu_fraction"] = max(shares)
    if all(result["energy"] for result in measured):
        joules = sum(result["energy"][0] for result in measured)
        updates = sum(len(result["updates"]) for result in measured)
        columns["energy_joules"] = joules / updates
        columns["energy_meter"] = measured[0]["energy"][1]
    return columns


def _measured(request: dict) -> dict:
    """Measure in this process.

    Returns:
        Seconds by part of each timed update and what the meters saw; or a status with its reason.
    """
    device, accumulation = ready(request), request["accumulation_steps"]
    try:
        check_countable(request)
        peak = _peak_flops_per_s(device, _product_dtype(request["method"]))
        torch.manual_seed(0)
        settle = load_method(request["method"]).settle
        training_step = step(request, device, watch=settle)
        first_s = sum(_timed_update(training_step, accumulation, device).values())
        gradients = _gradient_columns(training_step, request)
        once_s = sum(_timed_update(training_step, accumulation, device).values())
        updates = []
        with Watch(device) as watch:
            for _ in range(repeats(once_s, AIM_S, LEAST, MOST)):
                updates.append(_timed_update(training_step, accumulation, device))
                watch.look()
    except memory_errors.ERRORS as error:
        return memory_errors.result(error)
    return {
        "updates": updates,
        "first_s": first_s,
        "peak": peak,
        "flops": _micro_batch_flops(request) * accumulation,
        **gradients,
        "taint": watch.taint(),
        "other_cpu": watch.other_cpu(),
        "energy": watch.energy(),
    }


def _product_dtype(method: dict) -> torch.dtype:
    """The dtype in which the base of a method's entry multiplies (models/storage.py).

    A quantized base multiplies in its `compute`, not in the dtype of what it stores.
    """
    is_bf16 = "bf16" in (method["weights"], method.get("compute"))
    return torch.bfloat16 if is_bf16 else torch.float32


def _peak_flops_per_s(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of a few square matrix products."""
    side = PEAK_SIDE[device]
    left = torch.randn(side, side, device=device).to(dtype)
    right = left.clone()
    clock = Clock(device)
    seconds: list[float] = []
    while len(seconds) < PEAK_PRODUCTS and sum(seconds) < PEAK_S:
        torch.mm(left, right)
        seconds.append(clock.lap())
    return 2 * side**3 / min(seconds)


def _micro_batch_flops(request: dict) -> int:
    """FLOPs of forward and backward of one micro-batch."""
    method, model = meta_model(request)
    optimizer = None
    if any(param.requires_grad for param in model.parameters()):
        # It may decide which parameters require gradients.
        names = build.names(request["model"], request["shapes"]["task"])
        optimizer = profiled_optimizer(unreleased(request["method"]), method, model, names)
    forward_only = getattr(optimizer, "FORWARD_ONLY", False)
    with FlopCounterMode(display=False) as counter:
        texts = meta_batch(request["shapes"], model)
        loss = meta_loss(model.train(), texts, request["shapes"]["task"])
        if loss.requires_grad and not forward_only:
            loss.backward()
    return counter.get_total_flops() * (2 if forward_only else 1)


def _timed_update(training_step: Step, accumulation: int, device: str) -> dict[str, float]:
    """Seconds by part of one update; where nothing trains, only of forward."""
    trains = training_step.optimizer is not None
    seconds = dict.fromkeys(PARTS if trains else ("forward",), 0.0)
    clock = Clock(device)
    if training_step.is_forward_only:
        del seconds["backward"]
        training_step.evaluate_losses(accumulation)
        seconds["forward"] += clock.lap()
        training_step.update()
        seconds["optimizer"] += clock.lap()
        return seconds
    for _ in range(accumulation):
        loss = training_step.forward() / accumulation
        seconds["forward"] += clock.lap()
        if trains:
            training_step.backward(loss)
            seconds["backward"] += clock.lap()
    if trains:
        training_step.update()
        seconds["optimizer"] += clock.lap()
    return seconds


def _gradient_columns(training_step: Step, request: dict) -> dict:
    """Make one more update, and take its gradients' norms before the optimizer uses them.

    Returns:
        `metrics` with the norm or a note why there is none, and `groups` with rows of norms.
    """
    optimizer, accumulation = training_step.optimizer, request["accumulation_steps"]
    if optimizer is None:
        return {"metrics": {"note": FROZEN_NOTE}, "groups": []}
    if training_step.is_forward_only:
        return {"metrics": {"note": FORWARD_ONLY_NOTE}, "groups": []}
    for _ in range(accumulation):
        training_step.backward(training_step.forward() / accumulation)
    if getattr(optimizer, "released", False):
        training_step.update()
        note = FUSED_NOTE if optimizer.RELEASE == "fused" else GATHERED_NOTE
        return {"metrics": {"note": note}, "groups": []}
    norms = gradient_norms(training_step.model, request)
    training_step.update()
    groups = [{"group": group, "gradient_norm": norm} for group, norm in norms.items()]
    return {"metrics": {"gradient_norm": total_norm(norms)}, "groups": groups}
