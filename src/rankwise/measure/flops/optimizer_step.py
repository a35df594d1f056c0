"""FLOPs of an optimizer's step on the meta device: plain, with a refresh, and per element."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from rankwise.measure.flops.formulas import DECOMPOSITIONS, FORMULAS, Elementwise
from rankwise.measure.flops.subject import Subject
from rankwise.methods.parts.optimizers import step_without_values

NO_OPTIMIZER = {
    "optimizer_flops": 0,
    "optimizer_elementwise_flops": 0,
    "refresh_flops": 0,
    "optimizer_products_flops": 0,
}


def optimizer_columns(optimizer: torch.optim.Optimizer) -> dict[str, int | str]:
    """Count a step of an optimizer whose parameters have gradients.

    Returns:
        The optimizer's columns (see count.py), and `optimizer_products_flops`: the matrix products
        of a plain step without its decompositions.
    """
    plain, elementwise = count_step(optimizer, taken=1)
    total = sum(plain.values())
    products = sum(count for operation, count in plain.items() if operation not in DECOMPOSITIONS)
    columns = {
        "optimizer_flops": total,
        "optimizer_elementwise_flops": elementwise.flops,
        "refresh_flops": 0,
    }
    interval = _refresh_interval(optimizer)
    if interval:
        refreshing, _ = count_step(optimizer, taken=interval)
        columns["refresh_flops"] = sum(refreshing.values()) - total
        columns["refresh_interval_steps"] = interval
    elif products != total:
        # A plain step that decomposes a matrix computes its basis every time.
        columns["refresh_interval_steps"] = 1
    if elementwise.unseen:
        columns["optimizer_note"] = f"not counted: {', '.join(sorted(elementwise.unseen))}"
        del columns["optimizer_elementwise_flops"]
    columns["optimizer_products_flops"] = products
    return columns


def is_forward_only(optimizer: torch.optim.Optimizer | None) -> bool:
    """Whether an optimizer steps from losses, without a backward pass (MeZO)."""
    return getattr(optimizer, "FORWARD_ONLY", False)


def _refresh_interval(optimizer: torch.optim.Optimizer) -> int | None:
    """Steps between two refreshes, as the first parameter group with that option says."""
    for group in optimizer.param_groups:
        if "interval_steps" in group:
            return group["interval_steps"]
    return None


def count_step(optimizer: torch.optim.Optimizer, taken: int) -> tuple[dict, Elementwise]:
    """Count the step that follows `taken` steps.

    Args:
        optimizer: On the meta device; its parameters have gradients.
        taken: Number of steps before this one. Our optimizers decide by it whether to refresh.

    Returns:
        FLOPs by torch operation, and the counter of pointwise operations.
    """
    # Our optimizers keep the number of steps as an integer and refresh when it divides by their
    # interval. torch's keep it in a tensor, and none of their steps differs from another.
    if hasattr(optimizer, "descent"):
        for state in optimizer.state.values():
            state["step"] = taken
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    # An optimizer that steps from losses is given one that costs nothing: forward is counted apart.
    losses = [lambda: torch.zeros((), device="meta")] if is_forward_only(optimizer) else []
    with Elementwise() as elementwise, counter:
        step_without_values(optimizer, *losses)
    return dict(counter.get_flop_counts().get("Global", {})), elementwise


def method_update_columns(subject: Subject, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Count what the method's `after_step` computes at the step that an interval option names.

    Args:
        subject: The model and its method.
        optimizer: Passed to `after_step`.

    Returns:
        `method_update_flops` and `method_update_interval_steps` of the first option called
        `..._interval_steps` whose step has a matrix product; empty where none has.
    """
    for name, interval in subject.request["method"]["options"].items():
        if not name.endswith("interval_steps"):
            continue
        counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
        # Elementwise is here for its answers to conditions, not for its count.
        with Elementwise(), counter, torch.no_grad():
            subject.method.after_step(subject.model, optimizer, interval)
        total = counter.get_total_flops()
        if total:
            return {"method_update_flops": total, "method_update_interval_steps": interval}
    return {}
