"""Seconds of a training update by part, and what they come to: samples and tokens a second, FLOPs utilisation, energy.

Real updates on one batch of random tokens, with learning rate 0: every one does the same work, and none can diverge. The first
update allocates state and computes the first bases; it is not among the others but reported by itself. Later refreshes
(every `interval_steps`) are rarer than what is timed here. Reading data is no part of it. Parts are timed with the device
synchronised in between, which keeps it from running ahead into the next part.

Utilisation is that of the model's FLOPs (Chowdhery et al. 2022, arXiv 2204.02311, appendix B): those of forward and backward
as this method needs them, counted on the meta device without recomputation, over what the device could have done in the same
time. That peak is measured, the best of a few large square matrix products in the weights' dtype, in the same process; it is
below a vendor's number, so utilisation is above one that is taken against it.
"""

import statistics

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rankwise.core.errors import Unsupported
from rankwise.measure.batch import meta_batch
from rankwise.measure.speed.latency import rehearse, twin
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
from rankwise.measure.step import Step, step
from rankwise.methods.parts.base import load_method
from rankwise.models import build

LEAST, MOST, AIM_S = (
    3,
    50,
    2.0,
)  # updates that are timed in a process, and the seconds that they aim at
PEAK_PRODUCTS, PEAK_S = (
    4,
    2.0,
)  # matrix products at most, and seconds after which no further one is begun
PEAK_SIDE = {"cpu": 2048, "cuda": 8192}
PARTS = ("forward", "backward", "optimizer")
FUSED = "the optimizer steps inside backward (release): its time is in backward's, and no gradient stays to take a norm of"
GATHERED = "gradients are projected and freed inside backward (release): that is in its time, and none stays to take a norm of"
ATTENTION = frozenset(
    {"query", "key", "value", "output", "attention"}
)  # roles of a models entry; the others are feed-forward


def throughput(request: dict, processes: int = PROCESSES) -> dict:
    """Medians and quartiles over the updates of all processes; `groups` has the gradient norms at the start.

    Raises:
        RuntimeError: the device is not there.
    """
    device = ready(request)
    found = in_processes(rehearse, _measured, request, processes)
    if failed := next((one for one in found if "status" in one), None):
        return {**failed, "device": device}
    shapes = request["shapes"]
    sizes = {name: shapes[name] for name in ("batch_size", "sequence_length_tokens")}
    sizes |= {
        "accumulation_steps": request["accumulation_steps"],
        "model_flops": found[0]["flops"],
        "processes": processes,
    }
    cost = {**_cost(found, sizes), "device_name": device_name(device)}
    return {
        "metrics": {**sizes, **found[0]["metrics"]},
        "cost": cost,
        "groups": found[0]["groups"],
        "device": device,
    }


def _cost(found: list[dict], sizes: dict) -> dict:
    updates = [update for one in found for update in one["updates"]]
    times = spread("update_time", [sum(update.values()) for update in updates])
    for part in updates[0]:
        times |= spread(f"{part}_time", [update[part] for update in updates])
    median, peak = times["update_time_s"], max(one["peak"] for one in found)
    rate = sizes["batch_size"] * sizes["accumulation_steps"] / median
    return {
        **times,
        **_beside(found),
        "first_update_time_s": statistics.median(one["first"] for one in found),
        "throughput_samples_per_s": rate,
        "throughput_tokens_per_s": rate * sizes["sequence_length_tokens"],
        "peak_measured_flops_per_s": peak,
        "model_flops_utilisation_fraction": sizes["model_flops"] / (median * peak),
        "repeats": len(updates),
    }


def _beside(found: list[dict]) -> dict:
    """Taint, and energy where it was measured."""
    cost = {"taint": "; ".join(dict.fromkeys(reason for one in found for reason in one["taint"]))}
    if all(one["other_cpu"] is not None for one in found):
        cost["other_cpu_fraction"] = max(one["other_cpu"] for one in found)
    if all(one["energy"] for one in found):
        joules = sum(one["energy"][0] for one in found) / sum(len(one["updates"]) for one in found)
        cost |= {"energy_joules": joules, "energy_meter": found[0]["energy"][1]}
    return cost


def _flops(request: dict) -> int:
    """FLOPs of forward and backward of one micro-batch; the loss itself has no matrix product."""
    _, model = twin(request)
    batch, shapes = meta_batch(request["shapes"]), request["shapes"]
    labels = batch["input_ids"][:, 0] if shapes["task"] == "classification" else batch["input_ids"]
    with FlopCounterMode(display=False) as counter:
        logits = model.train()(**batch).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())
        if loss.requires_grad:
            loss.backward()
    return counter.get_total_flops()


def _measured(request: dict) -> dict:
    """Seconds by part of each timed update, and what was seen beside them."""
    device, steps = ready(request), request["accumulation_steps"]
    peak = _peak(
        device, torch.bfloat16 if request["method"]["weights"] == "bf16" else torch.float32
    )
    torch.manual_seed(0)
    try:
        made = step(request, device, watch=load_method(request["method"]).settle)
        first = sum(_update(made, steps, device).values())
        beside = _gradients(made, request)
        once = sum(_update(made, steps, device).values())
        with Watch(device) as watch:
            updates = []
            for _ in range(repeats(once, AIM_S, LEAST, MOST)):
                updates.append(_update(made, steps, device))
                watch.look()
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    except torch.OutOfMemoryError as error:
        return out_of_memory(error)
    seen = {"taint": watch.taint(), "other_cpu": watch.other_cpu(), "energy": watch.energy()}
    flops = _flops(request) * steps
    return {"updates": updates, "first": first, "peak": peak, "flops": flops, **beside, **seen}


def _peak(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of a few square products."""
    side = PEAK_SIDE[device]
    one = torch.randn(side, side, device=device).to(dtype)
    other, clock = one.clone(), Clock(device)
    seconds = []
    while len(seconds) < PEAK_PRODUCTS and sum(seconds) < PEAK_S:
        torch.mm(one, other)
        seconds.append(clock.lap())
    return 2 * side**3 / min(seconds)


def _update(made: Step, steps: int, device: str) -> dict[str, float]:
    """Seconds by part of one update; where nothing trains there is only forward."""
    spent = dict.fromkeys(PARTS[: 3 if made.optimizer else 1], 0.0)
    clock = Clock(device)
    for _ in range(steps):
        loss = made.forward() / steps
        spent["forward"] += clock.lap()
        if made.optimizer:
            loss.backward()
            spent["backward"] += clock.lap()
    if made.optimizer:
        made.update()
        spent["optimizer"] += clock.lap()
    return spent


def _fused(made: Step) -> bool:
    return getattr(made.optimizer, "released", False) and made.optimizer.RELEASE == "fused"


def _gradients(made: Step, request: dict) -> dict:
    """One update more, its gradients' norm by group, before the optimizer uses them."""
    if made.optimizer is None:
        return {"metrics": {"note": "nothing trains: forward only"}, "groups": []}
    for _ in range(request["accumulation_steps"]):
        (made.forward() / request["accumulation_steps"]).backward()
    released = getattr(made.optimizer, "released", False)
    norms = {} if released else gradient_norms(made.model, request)
    made.update()
    if released:
        return {"metrics": {"note": FUSED if _fused(made) else GATHERED}, "groups": []}
    total = torch.tensor(list(norms.values()), dtype=torch.float64).norm().item()
    return {
        "metrics": {"gradient_norm": total},
        "groups": [{"group": group, "gradient_norm": norm} for group, norm in norms.items()],
    }


def gradient_norms(model: nn.Module, request: dict) -> dict[str, float]:
    """Euclidean norm of the gradients that are there, by group: embeddings, attention, feed_forward, norms, head, adapters.

    Adapters are what the base does not have; `other` is what has no role in the models entry (a pooler).
    """
    shapes, squares = request["shapes"], {}
    base = build.from_shapes(request["model"], shapes["task"], shapes["classes"], "meta")
    groups = _groups(base, build.names(request["model"], shapes["task"]))
    for name, param in model.named_parameters():
        if param.grad is not None:
            group = groups.get(_base_name(name), "adapters")
            squares[group] = squares.get(group, 0.0) + param.grad.double().pow(2).sum().item()
    return {group: square**0.5 for group, square in squares.items()}


def _base_name(name: str) -> str:
    """A parameter's name in the base, less what peft wraps around it."""
    for wrap in ("base_model.model.", "base_layer.", "modules_to_save.default."):
        name = name.replace(wrap, "")
    return name


def _groups(base: nn.Module, names: dict) -> dict[str, str]:
    """Parameter name -> group."""
    return {
        f"{prefix}.{name}".lstrip("."): _group(prefix, module, names)
        for prefix, module in base.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }


def _group(name: str, module: nn.Module, names: dict) -> str:
    if set(name.split(".")) & set(names["head"]):
        return "head"
    if isinstance(module, nn.Embedding):
        return "embeddings"
    if "norm" in type(module).__name__.lower():
        return "norms"
    role_of = {entry["name"]: role for role, entry in names["modules"].items()}
    fitting = [end for end in role_of if f".{name}".endswith(f".{end}")]
    if not fitting:
        return "other"
    return "attention" if role_of[max(fitting, key=len)] in ATTENTION else "feed_forward"
