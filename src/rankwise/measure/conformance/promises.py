"""What every entry promises, Rankwise's own or a user's: one function checks one promise.

Each raises `PromiseBroken`, whose message says what was found in place of what was promised.
"""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from rankwise.measure.conformance.cases import Case, logits
from rankwise.measure.memory.persistent import memory
from rankwise.methods.parts.base import DENSE, Method, optimizer_class
from rankwise.methods.parts.peft_base import modules_of, role_of
from rankwise.models import storage

STEPS = 12  # enough for the loss of every method to fall
SAVED_AFTER = 9  # steps of these, when a run is stopped to be resumed
NAMED = 3  # parameters that a message names
ROUNDING = {"start": {"fp32": 1e-5, "bf16": 2e-2}, "merged": {"fp32": 2e-5, "bf16": 5e-2}}


class PromiseBroken(AssertionError):
    """An entry does not do what every entry promises; the message says what it does."""


def _promise(is_kept: object, broken: str) -> None:
    if not is_kept:
        raise PromiseBroken(broken)


def _some(names: Iterable[str]) -> str:
    """The first of some names, and how many there are."""
    ordered = sorted(names)
    more = len(ordered) - NAMED
    return ", ".join(ordered[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _rounding(kind: str, weights: str) -> float:
    return ROUNDING[kind].get(weights, ROUNDING[kind]["fp32"])


def check_start(found: Case) -> None:
    """Before the first step the adapted model answers as its base, unless the method says not."""
    if not found.method.IDENTITY:
        return
    gap = (logits(found.model) - logits(found.base)).abs().max().item()
    allowed = _rounding("start", found.entry["weights"])
    _promise(gap <= allowed, f"answers differ by up to {gap:.2g}; set IDENTITY = False if meant")


def check_training(found: Case) -> None:
    """The loss of one batch falls, something that trains moves, frozen parameters stay bitwise."""
    before = {name: param.detach().clone() for name, param in found.model.named_parameters()}
    trainable = set(found.trainable())
    losses = found.train(STEPS)
    moved = set()
    for name, param in found.model.named_parameters():
        if param.shape != before[name].shape or not torch.equal(param, before[name]):
            moved.add(name)
    _promise(moved, "no parameter moves")
    _promise(moved <= trainable, f"frozen parameters move: {_some(moved - trainable)}")
    shown = ", ".join(f"{loss:.4g}" for loss in losses[-3:])
    _promise(min(losses[-3:]) < losses[0], f"the loss begins at {losses[0]:.4g}, ends at {shown}")


def check_gradients_survive_a_step(found: Case) -> None:
    """Gradients come out of a step bitwise as they went in."""
    for _ in range(2):
        found.optimizer.zero_grad()
        found.model(**found.batch).loss.backward()
        gradients = {n: p.grad.clone() for n, p in found.trainable().items() if p.grad is not None}
        _promise(gradients, "no parameter gets a gradient")
        found.optimizer.step()
        changed = []
        for name, gradient in gradients.items():
            after = found.trainable()[name].grad
            if after is None or not torch.equal(after, gradient):
                changed.append(name)
        _promise(not changed, f"a step changes the gradients of {_some(changed)}")


def check_equal(one: Case, other: Case) -> None:
    """Two runs are equal to the bit."""
    _promise(one.train(STEPS // 2) == other.train(STEPS // 2), "two runs have different losses")
    expected = other.model.state_dict()
    state = one.model.state_dict()
    differing = [key for key, value in state.items() if not torch.equal(value, expected[key])]
    _promise(not differing, f"two runs end with different {_some(differing)}")


def check_resumed(whole: Case, first: Case, second: Case) -> None:
    """A run that continues from a saved state is the uninterrupted one, to the bit."""
    whole.train(STEPS)
    first.train(SAVED_AFTER)
    saved = first.save()
    second.step = SAVED_AFTER
    second.method.resume(second.model, second.step)
    unknown = second.model.load_state_dict(saved["model"], strict=False).unexpected_keys
    _promise(not unknown, f"the saved model has what a new one has not: {_some(unknown)}")
    second.optimizer.load_state_dict(saved["optimizer"])
    second.train(STEPS - SAVED_AFTER)
    expected = dict(whole.model.named_parameters())
    differing = []
    for name, param in second.model.named_parameters():
        if not torch.equal(param, expected[name]):
            differing.append(name)
    _promise(not differing, f"a resumed run ends with different {_some(differing)}")


def check_merged(found: Case) -> None:
    """After some training, the merged model has the base's modules and answers as the unmerged."""
    found.train(3)
    dense, weights = found.model.eval(), found.entry["weights"]
    if weights not in DENSE:
        dense = storage.dequantize(dense)
    answers = logits(dense)
    merged = found.method.merge(dense)
    _promise(merged is not None, "merge gives no model")
    if weights in DENSE:
        is_base = module_types(merged) == module_types(found.base)
        _promise(is_base, "the merged model has other modules than the base")
    gap = (logits(merged) - answers).abs().max().item()
    close = torch.allclose(logits(merged), answers, atol=_rounding("merged", weights), rtol=1e-4)
    _promise(close, f"the merged model's answers differ by up to {gap:.2g}")


def module_types(model: nn.Module) -> dict[str, type]:
    """The types of all modules, by name."""
    return {name: type(module) for name, module in model.named_modules()}


def check_prediction(request: dict) -> None:
    """Weights and optimizer state are predicted to the byte.

    Args:
        request: of a memory profile that measures.
    """
    try:
        metrics = memory(request)["metrics"]
    except ArithmeticError as error:
        raise PromiseBroken(str(error)) from error
    for part in ("weights_bytes", "optimizer_state_bytes"):
        predicted, measured = metrics[part], metrics[f"measured_{part}"]
        _promise(measured == predicted, f"{part}: predicted {predicted}, measured {measured}")


def check_state_formula(
    found: Case, project: Callable[[int, int], dict[str, int]] | None = None
) -> None:
    """The optimizer keeps the numbers of its formulas STATE, VECTOR and DENSE for each parameter.

    `project` gives s, L and r of a matrix (m, n) that the entry projects.
    """
    options = {key: value for key, value in found.entry["optimizer"].items() if key != "module"}
    formulas = optimizer_class(found.entry["optimizer"]["module"])
    for param in found.trainable().values():
        param.grad = torch.randn_like(param)
    found.optimizer.step(*[lambda: torch.zeros(())] * found.forward_only)
    for group in found.optimizer.param_groups:
        for param in group["params"]:
            state = found.optimizer.state[param].values()
            kept = sum(value.numel() for value in state if torch.is_tensor(value))
            if not param.requires_grad:  # it waits for its turn
                _promise(kept == 0, f"keeps {kept} numbers for a parameter that waits")
                continue
            values = {**options, "k": param.numel()}
            if param.ndim < 2:
                formula = formulas.VECTOR
            else:
                m, n = param.flatten(1).shape
                values |= {"m": m, "n": n}
                if group.get("dense"):
                    formula = formulas.DENSE
                else:
                    formula = formulas.formula(**options)
                    values |= project(m, n) if project else {}
            counted = eval(formula, {}, values)
            shape = tuple(param.shape)
            _promise(kept == counted, f"keeps {kept} numbers for {shape}, {formula} is {counted}")


def check_declared(found: Case) -> None:
    """TRAINABLE over the target matrices, and MODEL once, count what trains beside a new head."""
    in_head = set()
    for name, module in found.model.named_modules():
        if set(name.split(".")) & set(found.names["new_head"]):
            in_head |= {id(param) for param in module.parameters()}
    counted = 0
    for param in found.trainable().values():
        if id(param) not in in_head:
            counted += storage.numel(param)
    promised = declared(found.method, found.base, found.names)
    beside = _some(name for name, param in found.trainable().items() if id(param) not in in_head)
    _promise(
        counted == promised,
        f"TRAINABLE and MODEL say {promised} numbers, {counted} train: {beside}",
    )


def declared(method: Method, base: nn.Module, names: dict) -> int:
    """TRAINABLE over the target matrices of the base, and MODEL once."""
    layers = [module for module in base.modules() if isinstance(module, nn.ModuleList)]
    known = {
        **vars(method),
        **(getattr(method, "settings", None) or {}),
        "r": getattr(method, "rank", 0),
        "d": names["hidden_size"],
        "h": len(layers[0]),
    }
    total = eval(method.MODEL, {}, known)
    for path, module in modules_of(base, getattr(method, "targets", ()), names).items():
        m, n = rows_and_columns(module)
        values = {**known, "m": m, "n": n, "role": role_of(path, names)}
        total += eval(method.TRAINABLE, {}, values)
    return total


def rows_and_columns(module: nn.Module) -> tuple[int, int]:
    """(m, n) of W in W x; GPT-2's Conv1D keeps its matrix transposed."""
    if isinstance(module, Conv1D):
        return module.nf, module.nx
    return module.out_features, module.in_features
