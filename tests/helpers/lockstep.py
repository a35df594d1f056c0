"""An entry of config/methods.yaml beside the plain model with the weights that its paper's formula gives.

Everything is in float64. The plain model is transformers' own, called with other weights; the gradients of
the formula's parameters are autograd's. So nothing here is computed by the code under test.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from helpers import peft_cases
from helpers.conformance import TASKS, make_batch, request_of
from rankwise.methods.parts.base import Method, adapt, build_optimizer
from rankwise.models import build, storage

RATE, DECAY, EPS = (
    0.01,
    0.1,
    1e-3,
)  # eps is large, so that tiny gradients are not steps of a full rate
Answer = Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]


@dataclass
class Pair:
    """One entry on a small model: `ours` adapted and in evaluation, `plain` as it was found.

    Attributes:
        name: of the entry.
        entry: resolved, with the options of the smoke study unless a test gives others.
        method: the entry's method.
        ours: the adapted model.
        plain: the base, with the values that are stored; a base in 4 or 8 bits is as it was before.
        names: what a method may know about the model.
        batch: ids, attention mask and labels.
        theirs: values of what trains, by our names; the reference's own copies.
    """

    name: str
    entry: dict
    method: Method
    ours: nn.Module
    plain: nn.Module
    names: dict
    batch: dict[str, Tensor]
    theirs: dict[str, Tensor] = field(default_factory=dict)

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.ours.named_parameters() if p.requires_grad}

    def copy_parameters(self) -> None:
        """Let the reference start from our values."""
        for name, param in self.trainable().items():
            self.theirs[name] = param.detach().clone().requires_grad_()

    def randomise(self, std: float = 0.1) -> None:
        """Move everything that trains away from its start, where many gradients vanish."""
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for param in self.trainable().values():
                noise = torch.randn(param.shape, generator=generator, dtype=torch.float64)
                param.add_((std * noise).to(param.dtype))
        self.copy_parameters()

    def optimizer(self) -> torch.optim.Optimizer:
        return build_optimizer(self.entry, self.method, self.ours, self.names, seed=0)


def pair(
    name: str,
    model: str = "tiny",
    options: dict | None = None,
    optimizer: dict | None = None,
    double: bool = True,
    change: Callable[[nn.Module], None] = lambda _base: None,
) -> Pair:
    """The entry `name` on a small model with random weights, biases and norms.

    Args:
        name: of the entry.
        model: a key of `conformance.TASKS`, or minilm, a small BERT.
        options: replace options of the method.
        optimizer: replace options of the optimizer.
        double: compute in float64, with weights as they were stored.
        change: changes the base before anything else sees it.
    """
    request = request_of(name, "tiny" if model == "minilm" else model)
    if model == "minilm":
        request["model"] = peft_cases.entry("minilm")
    entry = request["method"]
    entry |= {"learning_rate": RATE}
    entry["options"] |= options or {}
    entry["optimizer"] |= optimizer or {}
    _, task, classes = TASKS.get(model, TASKS["tiny"])
    names = build.names(request["model"], task)
    torch.manual_seed(0)
    base = build.from_shapes(request["model"], task, classes, "cpu", "eager")
    with torch.no_grad():
        for param in base.parameters():
            if param.ndim < 2:
                param.add_(0.3 * torch.randn_like(param))
            else:
                param.mul_(5)
    change(base)
    plain = copy.deepcopy(base).eval()
    stored = storage.store(base, entry["weights"], names)
    method, ours = adapt(entry, stored, names)
    if entry["weights"] == "bf16":
        plain = rounded_to_bf16(plain, names["new_head"])
    if double:
        ours, plain = ours.double(), plain.double()
    found = Pair(name, entry, method, ours.eval(), plain, names, make_batch(classes))
    found.copy_parameters()
    return found


def rounded_to_bf16(model: nn.Module, kept: list[str]) -> nn.Module:
    """Round every parameter to 8 significant bits, ties to even, except those of a new head."""
    with torch.no_grad():
        for name, param in model.named_parameters():
            if not set(name.split(".")) & set(kept):
                mantissa, exponent = torch.frexp(param.double())
                param.copy_(torch.ldexp((mantissa * 256).round() / 256, exponent))
    return model


def plain_name(name: str) -> str:
    """The plain model's name of a parameter that trains as it is, or that peft trains as a copy."""
    for prefix in ("base_model.model.", "base_model."):
        if name.startswith(prefix):
            return name.removeprefix(prefix).replace("modules_to_save.default.", "")
    return name


def by_weights(found: Pair, weights: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Answer:
    """The plain model's logits and loss with other weights, which `weights` gives by the plain model's names."""

    def answer(theirs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        output = functional_call(found.plain, weights(theirs), (), found.batch)
        return output.logits, output.loss

    return answer


def classified(found: Pair, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The logits and the mean cross entropy of the batch's labels."""
    rows = torch.arange(len(logits))
    return logits, -logits.log_softmax(-1)[rows, found.batch["labels"]].mean()


def check_gradients(found: Pair, answer: Answer, atol: float = 1e-11) -> None:
    """Our logits, loss and gradients are those of the reference's answer to the batch."""
    ours = found.ours(**found.batch)
    logits, loss = answer(found.theirs)
    torch.testing.assert_close(ours.logits.double(), logits, atol=atol, rtol=100 * atol)
    torch.testing.assert_close(ours.loss.double(), loss.double(), atol=atol, rtol=100 * atol)
    found.ours.zero_grad()
    ours.loss.backward()
    expected = gradients(found, loss)
    for name, param in found.trainable().items():
        scale = max(expected[name].abs().max().item(), 1e-3)
        gap = (param.grad - expected[name]).abs().max().item()
        assert gap <= 100 * atol * scale, (name, gap, scale)
    assert any(gradient.abs().max() > 1e-6 for gradient in expected.values())


def gradients(found: Pair, loss: Tensor) -> dict[str, Tensor]:
    """The loss's gradients for the reference's parameters; zero where it does not depend on one."""
    found_gradients = torch.autograd.grad(loss, list(found.theirs.values()), allow_unused=True)
    pairs = zip(found.theirs, found_gradients, strict=True)
    return {
        name: torch.zeros_like(found.theirs[name]) if gradient is None else gradient
        for name, gradient in pairs
    }


# Training -----------------------------------------------------------------------------------------


@dataclass
class AdamW:
    """Loshchilov & Hutter 2019, algorithm 2, for parameters by name.

    `rates` multiplies the learning rate by name (LoRA+).
    """

    rates: Callable[[str], float] = lambda _name: 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    mean: dict[str, Tensor] = field(default_factory=dict)
    square: dict[str, Tensor] = field(default_factory=dict)
    t: int = 0

    def step(self, params: dict[str, Tensor], grads: dict[str, Tensor]) -> None:
        self.t += 1
        b1, b2 = self.betas
        for name, param in params.items():
            rate, grad = RATE * self.rates(name), grads[name]
            self.mean[name] = b1 * self.mean.get(name, 0) + (1 - b1) * grad
            self.square[name] = b2 * self.square.get(name, 0) + (1 - b2) * grad**2
            mean = self.mean[name] / (1 - b1**self.t)
            root = (self.square[name] / (1 - b2**self.t)).sqrt()
            with torch.no_grad():
                param.copy_((1 - rate * DECAY) * param - rate * mean / (root + EPS))


def check_training(
    found: Pair,
    answer: Answer,
    adamw: AdamW,
    steps: int = 5,
    filtered: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda grads: grads,
    after_step: Callable[[int], None] = lambda _step: None,
) -> None:
    """After each step everything that trains is equal to the reference's, and nothing else has moved.

    Args:
        found: the entry, with an optimizer of rate RATE, decay DECAY and epsilon EPS.
        answer: the reference's logits and loss on the batch, from its parameters.
        adamw: the reference's optimizer.
        steps: how many.
        filtered: what the reference's optimizer gets to see of the gradients.
        after_step: what the reference does after a step, counted from 1.
    """
    optimizer = found.optimizer()
    frozen = {n: p.clone() for n, p in found.ours.named_parameters() if not p.requires_grad}
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        found.ours(**found.batch).loss.backward()
        optimizer.step()
        found.method.after_step(found.ours, optimizer, step)
        _, loss = answer(found.theirs)
        adamw.step(found.theirs, filtered(gradients(found, loss)))
        after_step(step)
        for name, param in found.trainable().items():
            gap = (param - found.theirs[name]).abs().max().item()
            assert math.isfinite(gap), name
            assert gap <= 1e-8, (step, name, gap)
    for name, param in found.ours.named_parameters():
        assert param.requires_grad or torch.equal(param, frozen[name]), name
