"""FLOPs of training from shapes: of a micro-batch, an update, a sample and an epoch, by phase.

Everything runs on the meta device, so nothing is allocated. FLOPs are those of matrix products, two
for each multiply-add, counted by torch's FlopCounterMode. Attention is eager, because its products
are then visible to every counter, and adapters are not merged. fvcore counts the forward pass a
second time. The base is dense: products of quantized weights are those of dense ones, and what
dequantization costs per element is left out.

What the columns mean:

forward_flops, backward_flops
    One micro-batch. Masks, top-k and zeroed columns save no product here: nothing is multiplied by
    the share of weights that a method keeps.
second_forward_flops
    The second forward pass of an optimizer that steps from two losses (MeZO) without a backward.
optimizer_flops
    A step that refreshes no basis.
    With an optimizer that trains some blocks at a time, the largest blocks are the active ones.
refresh_flops, refresh_interval_steps
    What a step that refreshes its bases costs more, and how often one does; its decompositions
    follow closed forms (formulas.py). An optimizer that computes its basis in every step has the
    interval 1, and all of that in `optimizer_flops`. Refreshes that depend on values (drift) count
    as due in every step, for the meta device has no values. Random numbers and top-k are free.
method_update_flops, method_update_interval_steps
    What a method computes by itself after every so many steps, like the truncation of weight
    reduction. What it computes per element (masks) is left out.
optimizer_elementwise_flops
    Pointwise operations of a plain step, one for each number written. They are in no sum.
    `optimizer_note` names kernels that no counter sees, such as the 8-bit step of bitsandbytes.
optimizer_amortised_flops
    optimizer + refresh / interval + method update / its interval, rounded to whole FLOPs.
step_flops
    forward + backward (or the second forward) + amortised optimizer.
update_flops
    `accumulation_steps` micro-batches and the amortised optimizer.
sample_flops
    An update divided by its samples, rounded to whole FLOPs.
epoch_flops
    All `train_samples`. A last micro-batch that is not full counts as a full one, and so does a
    last update.
profiler_step_flops, profiler_elementwise_flops
    A step as published system A counts it (profiler.py), and the additions and scalings in that.
"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from rankwise.core.errors import Unsupported
from rankwise.measure.batch import meta_batch
from rankwise.measure.flops import fvcore, profiler
from rankwise.measure.flops.formulas import PRODUCTS
from rankwise.measure.flops.optimizer_step import (
    NO_OPTIMIZER,
    is_forward_only,
    method_update_columns,
    optimizer_columns,
)
from rankwise.measure.flops.subject import Subject


def flops(request: dict) -> dict:
    """Count the FLOPs of a request's training, by phase and in total.

    Returns:
        A result with the metrics listed above; or status `unsupported` with the reason.

    Raises:
        ArithmeticError: Two counters of the forward pass disagree.
    """
    try:
        subject = Subject.of(request, "eager")
        metrics = _phases(subject)
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    metrics |= second_count(subject, metrics["forward_flops"])
    metrics |= totals(metrics, request)

    products, elementwise = _profiled_step(request)
    # System A's profiler counts the products of its optimizers as well (profiler.py, OPTIMIZER).
    products += metrics.pop("optimizer_products_flops")
    metrics["profiler_step_flops"] = products + elementwise
    metrics["profiler_elementwise_flops"] = elementwise

    for name in ("batch_size", "sequence_length_tokens"):
        metrics[name] = request["shapes"][name]
    metrics["accumulation_steps"] = request["accumulation_steps"]
    return {"metrics": metrics}


def update_flops(request: dict) -> int:
    """FLOPs of one optimizer update, by torch's counter alone.

    Raises:
        Unsupported: The method cannot train this model; the message is the reason.
    """
    phases = _phases(Subject.of(request, "eager"))
    return totals(phases, {**request, "train_samples": None})["update_flops"]


def totals(phases: dict, request: dict) -> dict[str, int]:
    """Add the phases up to a step, an update, a sample and an epoch.

    Args:
        phases: `forward_flops`, `backward_flops`, `optimizer_flops` and, where they exist, those of
            a refresh and of the method's update with their intervals.
        request: Its batch size, `accumulation_steps` and `train_samples` (None: no epoch).

    Returns:
        `optimizer_amortised_flops`, `step_flops`, `update_flops`, `sample_flops` and, where the
        number of train samples is known, `epoch_flops`. The module's docstring defines them.
    """
    batch_size = request["shapes"]["batch_size"]
    accumulation = request["accumulation_steps"]
    samples = request["train_samples"]

    spread = 0.0
    for kind in ("refresh", "method_update"):
        interval = phases.get(f"{kind}_interval_steps", 1)
        spread += phases.get(f"{kind}_flops", 0) / interval
    amortised = phases["optimizer_flops"] + round(spread)

    micro_batch = phases["forward_flops"] + phases["backward_flops"]
    micro_batch += phases.get("second_forward_flops", 0)
    update = accumulation * micro_batch + amortised
    columns = {
        "optimizer_amortised_flops": amortised,
        "step_flops": micro_batch + amortised,
        "update_flops": update,
        "sample_flops": round(update / (batch_size * accumulation)),
    }
    if samples is not None:
        micro_batches = _ceil_div(samples, batch_size)
        updates = _ceil_div(micro_batches, accumulation)
        columns["epoch_flops"] = micro_batches * micro_batch + updates * amortised
    return columns


def _ceil_div(number: int, divisor: int) -> int:
    return -(-number // divisor)


def second_count(subject: Subject, first: int) -> dict[str, int | str]:
    """Count the forward pass once more, with fvcore.

    Args:
        subject: The model to count.
        first: What torch counted.

    Returns:
        `fvcore_forward_flops`; or `fvcore_note` where torch.jit cannot trace the model, or where an
        autograd function hides products from it.

    Raises:
        ArithmeticError: The two counts differ, and no function hides products.
    """
    try:
        texts = meta_batch(subject.request["shapes"], subject.model)
        second, functions = fvcore.forward(subject.model, texts)
    except (RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        return {"fvcore_note": f"torch.jit cannot trace this model: {reason}"}
    if second < first and functions:
        return {"fvcore_note": f"fvcore does not see the products of {', '.join(functions)}"}
    if second != first:
        raise ArithmeticError(f"forward: torch counts {first}, fvcore {second}")
    return {"fvcore_forward_flops": second}


def _profiled_step(request: dict) -> tuple[int, int]:
    """FLOPs of products and per element, as system A's profiler counts forward and backward."""
    # System A's runs used torch's fused attention and had no padding, hence no mask.
    subject = Subject.of(request, None)
    optimizer = subject.optimizer()  # it may decide which parameters require gradients
    batch = meta_batch(request["shapes"], subject.model)
    del batch["attention_mask"]
    if is_forward_only(optimizer):
        with torch.no_grad():
            one_pass = profiler.forward_and_backward(subject.model, lambda: subject.loss(batch))
        return 2 * one_pass[0], 2 * one_pass[1]
    return profiler.forward_and_backward(subject.model, lambda: subject.loss(batch))


def _phases(subject: Subject) -> dict[str, int | str]:
    """FLOPs of forward, backward, the optimizer and the method's own update."""
    optimizer = subject.optimizer()
    with FlopCounterMode(display=False, custom_mapping=PRODUCTS) as forward:
        loss = subject.loss(meta_batch(subject.request["shapes"], subject.model))
    with FlopCounterMode(display=False, custom_mapping=PRODUCTS) as backward:
        if optimizer is not None and not is_forward_only(optimizer):
            loss.backward()
    phases = {
        "forward_flops": forward.get_total_flops(),
        "backward_flops": backward.get_total_flops(),
    }
    if optimizer is None:
        return phases | NO_OPTIMIZER
    if is_forward_only(optimizer):
        phases["second_forward_flops"] = phases["forward_flops"]
    return phases | optimizer_columns(optimizer) | method_update_columns(subject, optimizer)
