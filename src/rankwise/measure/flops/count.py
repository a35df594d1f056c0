"""FLOPs of training from shapes: of a micro-batch, an update, a sample, an epoch, by phase; and as others count them.

On the meta device, nothing is allocated. FLOPs are those of matrix products (2 a multiply-add), counted by torch's
FlopCounterMode, with eager attention, whose products every counter sees, and with adapters un-merged; fvcore counts the forward
pass a second time. Quantized weights are not stored here: their products are those of dense ones, and what dequantization
costs, by element, is left out.

forward, backward: of one micro-batch. optimizer: of a step that refreshes no basis; `refresh_flops` is what a step that does
costs more, its decompositions by closed forms (flop_formulas). An optimizer that looks for its basis at every step has the
interval 1, and all in `optimizer_flops`. `method_update_flops` is what a method does by itself every so many steps (weight
reduction: truncate); what it does by element (masks) is left out. `optimizer_elementwise_flops` are the pointwise operations of
a plain step, in no sum: one for each number written. Kernels of their own (bitsandbytes' 8-bit step) are not seen, which
`optimizer_note` says. Refreshes that values decide on (drift) count as due at every step, for the meta device has no values;
random numbers and top-k are free.

amortised: optimizer + refresh / interval + method's update / interval, to whole FLOPs. step: forward + backward + amortised
optimizer. update: `accumulation_steps` micro-batches and the amortised optimizer. sample: an update over its samples, to whole
FLOPs. epoch: over all `train_samples`; a last micro-batch that is not full counts as one, so does a last update. Nothing is
ever multiplied by a share of what was kept: masks, top-k and zeroed columns save no product. `profiler_step_flops` are
published system A's (profiler_flops), of which `profiler_elementwise_flops` are additions and scalings.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rankwise.core.errors import Unsupported
from rankwise.measure.batch import meta_batch
from rankwise.measure.flops import fvcore, profiler
from rankwise.measure.flops.formulas import DECOMPOSITIONS, FORMULAS, PRODUCTS, Elementwise
from rankwise.methods.parts.base import Method, adapt, build_optimizer, unreleased
from rankwise.models import build


@dataclass
class Subject:
    """An adapted model on the meta device, in the state that most of its training is in."""

    request: dict
    method: Method
    model: nn.Module
    names: dict

    @classmethod
    def of(cls, request: dict, attention: str) -> "Subject":
        """Build it from a request.

        Raises:
            Unsupported: the method cannot do the model, with the reason.
        """
        shapes = request["shapes"]
        model = build.from_shapes(
            request["model"], shapes["task"], shapes["classes"], "meta", attention
        )
        names = build.names(request["model"], shapes["task"])
        with torch.device("meta"):
            method, model = adapt(request["method"], model, names)
        method.settle(model.train())
        return cls(request, method, model, names)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """One with the real one's gradient shapes; cross-entropy has no product."""
        classifies = self.request["shapes"]["task"] == "classification"
        labels = batch["input_ids"][:, 0] if classifies else batch["input_ids"]
        return nn.functional.cross_entropy(
            self.model(**batch).logits.flatten(0, -2), labels.flatten()
        )

    def optimizer(self) -> torch.optim.Optimizer | None:
        """Its state allocated where it can be ahead of a step; None where nothing trains."""
        if not any(param.requires_grad for param in self.model.parameters()):
            return None
        built = build_optimizer(
            unreleased(self.request["method"]), self.method, self.model, self.names, seed=0
        )
        if hasattr(built, "allocate"):
            built.allocate()
        return built


def flops(request: dict) -> dict:
    """FLOPs by phase of one micro-batch, and what they come to.

    Raises:
        ArithmeticError: two counters of the forward pass disagree.
    """
    try:
        subject = Subject.of(request, "eager")
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    metrics = _forward_and_backward(subject)
    metrics |= second_count(subject, metrics["forward_flops"])
    metrics |= totals(metrics, request)
    products, elementwise = _profiled(request)
    products += metrics.pop("optimizer_products_flops")
    metrics |= {
        "profiler_step_flops": products + elementwise,
        "profiler_elementwise_flops": elementwise,
    }
    shapes = {name: request["shapes"][name] for name in ("batch_size", "sequence_length_tokens")}
    return {"metrics": {**metrics, **shapes, "accumulation_steps": request["accumulation_steps"]}}


def update_flops(request: dict) -> int:
    """FLOPs of one optimizer update, by torch's counter alone.

    Raises:
        Unsupported: the method cannot do the model, with the reason.
    """
    return totals(
        _forward_and_backward(Subject.of(request, "eager")), {**request, "train_samples": None}
    )["update_flops"]


def totals(parts: dict, request: dict) -> dict[str, int]:
    """What the phases come to, from a request's batch size, `accumulation_steps` and `train_samples`."""
    batch, steps, samples = (
        request["shapes"]["batch_size"],
        request["accumulation_steps"],
        request["train_samples"],
    )
    micro_batch = parts["forward_flops"] + parts["backward_flops"]
    spread = (
        parts.get(f"{kind}_flops", 0) / parts.get(f"{kind}_interval_steps", 1)
        for kind in ("refresh", "method_update")
    )
    amortised = parts["optimizer_flops"] + round(sum(spread))
    update = steps * micro_batch + amortised
    found = {
        "optimizer_amortised_flops": amortised,
        "step_flops": micro_batch + amortised,
        "update_flops": update,
        "sample_flops": round(update / (batch * steps)),
    }
    if samples is not None:
        micro_batches = -(-samples // batch)
        found["epoch_flops"] = micro_batches * micro_batch - (-micro_batches // steps) * amortised
    return found


def second_count(subject: Subject, first: int) -> dict[str, int | str]:
    """Fvcore's count of the forward pass, or why it has none.

    Raises:
        ArithmeticError: it is not the `first`.
    """
    try:
        second = fvcore.forward(subject.model, meta_batch(subject.request["shapes"]))
    except RuntimeError as error:
        return {
            "fvcore_note": f"torch.jit cannot trace this model: {str(error).strip().splitlines()[0]}"
        }
    if second != first:
        raise ArithmeticError(f"forward: torch counts {first}, fvcore {second}")
    return {"fvcore_forward_flops": second}


def _profiled(request: dict) -> tuple[int, int]:
    subject = Subject.of(request, "sdpa")
    batch = {"input_ids": meta_batch(request["shapes"])["input_ids"]}
    return profiler.forward_and_backward(subject.model, lambda: subject.loss(batch))


def _forward_and_backward(subject: Subject) -> dict[str, int | str]:
    optimizer = subject.optimizer()
    with FlopCounterMode(display=False, custom_mapping=PRODUCTS) as forward:
        loss = subject.loss(meta_batch(subject.request["shapes"]))
    with FlopCounterMode(display=False, custom_mapping=PRODUCTS) as backward:
        if optimizer:
            loss.backward()
    parts = {
        "forward_flops": forward.get_total_flops(),
        "backward_flops": backward.get_total_flops(),
    }
    return {**parts, **(_optimizer(subject, optimizer) if optimizer else NO_OPTIMIZER)}


# The optimizer ------------------------------------------------------------------------------------------------------------

NO_OPTIMIZER = {
    "optimizer_flops": 0,
    "optimizer_elementwise_flops": 0,
    "refresh_flops": 0,
    "optimizer_products_flops": 0,
}


def _optimizer(subject: Subject, optimizer: torch.optim.Optimizer) -> dict[str, int | str]:
    """The optimizer's part; `optimizer_products_flops` are a plain step's without its decompositions."""
    plain, elementwise = count_step(optimizer, taken=1)
    found = {
        "optimizer_flops": sum(plain.values()),
        "optimizer_elementwise_flops": elementwise.flops,
        "refresh_flops": 0,
    }
    products = sum(count for op, count in plain.items() if op not in DECOMPOSITIONS)
    interval = next(
        (group["interval_steps"] for group in optimizer.param_groups if "interval_steps" in group),
        None,
    )
    if interval:
        refreshing = sum(count_step(optimizer, taken=interval)[0].values())
        found |= {
            "refresh_flops": refreshing - found["optimizer_flops"],
            "refresh_interval_steps": interval,
        }
    elif products != found["optimizer_flops"]:
        found["refresh_interval_steps"] = 1
    if elementwise.unseen:
        found["optimizer_note"] = f"not counted: {', '.join(sorted(elementwise.unseen))}"
        del found["optimizer_elementwise_flops"]
    return {**found, "optimizer_products_flops": products, **_method_update(subject, optimizer)}


def count_step(optimizer: torch.optim.Optimizer, taken: int) -> tuple[dict, Elementwise]:
    """FLOPs by operation, and by element, of the step after `taken` of them."""
    if hasattr(
        optimizer, "descent"
    ):  # others keep the count in a tensor, and no step of theirs differs
        for state in optimizer.state.values():
            state["step"] = taken
    with (
        Elementwise() as elementwise,
        FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter,
    ):
        optimizer.step()
    return dict(counter.get_flop_counts().get("Global", {})), elementwise


def _method_update(subject: Subject, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """What `after_step` computes at the step that an option `..._interval_steps` names."""
    for name, interval in subject.request["method"]["options"].items():
        if name.endswith("interval_steps"):
            with (
                Elementwise(),
                FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter,
                torch.no_grad(),
            ):
                subject.method.after_step(subject.model, optimizer, interval)
            if counter.get_total_flops():
                return {
                    "method_update_flops": counter.get_total_flops(),
                    "method_update_interval_steps": interval,
                }
    return {}
