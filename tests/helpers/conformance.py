"""What every method entry promises, whether it is Rankwise's own or a user's: one entry on a small model.

A `Case` is an adapted model with random weights, a batch and an optimizer. The functions below it check one
promise each, and raise AssertionError.
"""

import copy
import functools
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from transformers.pytorch_utils import Conv1D

from helpers.repository import ROOT
from rankwise.core.errors import Unsupported
from rankwise.methods.parts.base import (
    Method,
    adapt,
    build_optimizer,
    load_method,
    optimizer_class,
    set_parameters,
    unreleased,
)
from rankwise.models import build, storage
from rankwise.optim.parts.waiting import trains
from rankwise.study.grids import Cell
from rankwise.study.plan import Plan

SMOKE = yaml.safe_load((ROOT / "config/methods_smoke.yaml").read_text())
# model: its dataset, task and number of classes
TASKS = {
    "tiny": ("generated_reviews", "classification", 2),
    "stories260k": ("wikitext2_files", "language_modelling", 0),
}
# What a method says of a model that it cannot adapt, by (entry, model). Nothing else may be unsupported.
UNSUPPORTED = {
    ("prefix_tuning", "tiny"): "transformers' DistilBERT takes no keys and values from outside",
    ("bitfit", "stories260k"): "the model has no biases",
    ("adaption_prompt", "tiny"): (
        "peft refuses ADAPTION_PROMPT: Unsupported model type for adaption prompt: 'distilbert'."
    ),
}
# By entry: types of peft that need what a study has not, on whatever model.
NEEDS = {
    "adamss": "ADAMSS clusters subspaces by scikit-learn, which Rankwise does not install",
    "cartridge": (
        "CARTRIDGE starts from the keys and values of a document, and learns from answers about it"
    ),
    "cpt": "CPT needs the tokens of labelled examples as its prompt, and a loss of its own",
    "frod": "FROD multiplies sparse matrices, whose memory and FLOPs do not follow from shapes",
    "multitask_prompt_tuning": (
        "MULTITASK_PROMPT_TUNING needs the id of a task with every example"
    ),
    "poly": "POLY needs the id of a task with every example",
    "shadow": "SHADOW needs the loss of its second model in every step",
    "xlora": "XLORA mixes LoRA adapters that were trained before",
}
UNSUPPORTED |= {(name, model): reason for name, reason in NEEDS.items() for model in TASKS}
RANK, LENGTH, BATCH, PROFILE_BATCH = 4, 12, 6, 2
STEPS = 12  # enough for the loss of every method to fall


@functools.cache
def all_requests(project: Path, model: str) -> Plan:
    """The plan of profiles of all entries on one model, in a folder with its own or Rankwise's entries."""
    grid = {
        "models": [model],
        "datasets": [TASKS[model][0]],
        "ranks": [RANK],
        "batch_size": PROFILE_BATCH,
        "sequence_length_tokens": LENGTH,
        "measurements": ["memory", "flops"],
    }
    study = {"name": "conformance", "question": "?", "device": "cpu", "profile": [grid]}
    return Plan({**study, "override": SMOKE["override"]}, project)


def request_of(name: str, model: str, measurement: str = "memory", project: Path = ROOT) -> dict:
    plan = all_requests(project, model)
    cells: list[Cell] = plan.cells(measurement)
    cell = next(cell for cell in cells if cell.method == name)
    return copy.deepcopy(plan.request(measurement, cell))


class Case:
    """One entry on one small model."""

    def __init__(
        self,
        name: str,
        model: str = "tiny",
        *,
        seed: int = 0,
        release: bool = True,
        project: Path = ROOT,
    ):
        self.request = request_of(name, model, project=project)
        _, task, classes = TASKS[model]
        entry = self.request["method"] if release else unreleased(self.request["method"])
        self.forward_only = getattr(
            optimizer_class(entry["optimizer"]["module"]), "FORWARD_ONLY", False
        )
        # A step of random direction is as long as the gradient times the root of all numbers.
        self.entry = {**entry, "learning_rate": 1e-4 if self.forward_only else 5e-3}
        self.names = build.names(self.request["model"], task)
        torch.manual_seed(seed)
        base = build.from_shapes(self.request["model"], task, classes, "cpu")
        self.batch = make_batch(classes)
        dense, kind = copy.deepcopy(base), self.entry["weights"]
        begun = load_method(self.entry).start(dense, self.names, [self.batch], kind)
        set_parameters(dense, begun.base)
        self.base = storage.store(base, kind, self.names)
        stored = storage.store(dense, kind, self.names)
        self.method, self.model = adapt(self.entry, stored, self.names)
        set_parameters(self.model, begun.adapted)
        self.model.train()
        self.optimizer = None
        if self.trainable():
            self.optimizer = build_optimizer(self.entry, self.method, self.model, self.names, seed)
        self.step = 0

    def trainable(self) -> dict[str, nn.Parameter]:
        parameters = self.model.named_parameters()
        return {name: param for name, param in parameters if trains(param)}

    def train(self, steps: int) -> list[float]:
        """Losses on the one batch; dropout draws from the step, so that a resumed run draws the same."""
        losses = []
        for _ in range(steps):
            self.step += 1
            torch.manual_seed(self.step)
            self.optimizer.zero_grad()
            if self.forward_only:
                self.model.eval()
                loss = self.optimizer.step(lambda: self.model(**self.batch).loss)
                self.model.train()
            else:
                loss = self.model(**self.batch).loss
                loss.backward()
                self.optimizer.step()
            self.method.after_step(self.model, self.optimizer, self.step)
            losses.append(loss.item())
        return losses

    def save(self) -> dict:
        """The state of the run, through a file in memory."""
        file = io.BytesIO()
        state = {"model": storage.learnt(self.model), "optimizer": self.optimizer.state_dict()}
        torch.save(state, file)
        return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


def case(name: str, model: str = "tiny", **settings: object) -> Case:
    """A case; the test is skipped if the method refuses the model with the sentence of `UNSUPPORTED`."""
    try:
        return Case(name, model, **settings)
    except Unsupported as error:
        skip_unsupported(name, model, str(error))
        raise


def skip_unsupported(name: str, model: str, reason: str) -> None:
    """Skip the test if this is the reason that is expected; fail it with any other."""
    assert reason == UNSUPPORTED.get((name, model)), (name, model, reason)
    pytest.skip(f"unsupported: {reason}")


def make_batch(classes: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 90, (BATCH, LENGTH), generator=generator)
    labels = torch.randint(0, classes, (BATCH,), generator=generator) if classes else ids.clone()
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    """Answers on a batch of its own, in evaluation; the model stays in the mode that it was in."""
    was_training = model.training
    ids = torch.randint(3, 90, (3, LENGTH), generator=torch.Generator().manual_seed(2))
    answers = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
    model.train(was_training)
    return answers


# Promises -----------------------------------------------------------------------------------------


def check_start(found: Case) -> None:
    """Before the first step the adapted model answers as its base, unless the method says otherwise."""
    gap = (logits(found.model) - logits(found.base)).abs().max().item()
    rounding = 2e-2 if found.entry["weights"] == "bf16" else 1e-5
    assert not found.method.IDENTITY or gap <= rounding, gap


def check_training(found: Case) -> None:
    """The loss of one batch falls, something that trains moves, frozen parameters stay bitwise."""
    before = {name: p.detach().clone() for name, p in found.model.named_parameters()}
    trainable = set(found.trainable())
    losses = found.train(STEPS)
    assert min(losses[-3:]) < losses[0], losses
    moved = set()
    for name, param in found.model.named_parameters():
        if param.shape != before[name].shape or not torch.equal(param, before[name]):
            moved.add(name)
    assert moved
    assert moved <= trainable


def check_gradients_survive_a_step(found: Case) -> None:
    """Gradients come out of a step bitwise as they went in."""
    for _ in range(2):
        found.optimizer.zero_grad()
        found.model(**found.batch).loss.backward()
        gradients = {n: p.grad.clone() for n, p in found.trainable().items() if p.grad is not None}
        assert gradients
        found.optimizer.step()
        for name, gradient in gradients.items():
            assert torch.equal(found.trainable()[name].grad, gradient), name


def check_resumed(whole: Case, first: Case, second: Case) -> None:
    """A run that continues from a saved state is the uninterrupted one, to the bit."""
    whole.train(12)
    first.train(9)
    saved = first.save()
    second.step = 9
    second.method.resume(second.model, second.step)
    assert not second.model.load_state_dict(saved["model"], strict=False).unexpected_keys
    second.optimizer.load_state_dict(saved["optimizer"])
    second.train(3)
    expected = dict(whole.model.named_parameters())
    for name, param in second.model.named_parameters():
        assert torch.equal(param, expected[name]), name


def check_merged(found: Case) -> None:
    """After some training, the merged model has the base's modules and answers as the unmerged one."""
    found.train(3)
    dense = found.model.eval()
    if found.entry["weights"] not in ("fp32", "bf16"):
        dense = storage.dequantize(dense)
    answers = logits(dense)
    merged = found.method.merge(dense)
    if found.entry["weights"] in ("fp32", "bf16"):
        assert module_types(merged) == module_types(found.base)
    rounding = 5e-2 if found.entry["weights"] == "bf16" else 2e-5
    assert torch.allclose(logits(merged), answers, atol=rounding, rtol=1e-4)


def module_types(model: nn.Module) -> dict[str, type]:
    return {name: type(module) for name, module in model.named_modules()}


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
                assert kept == 0
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
            assert kept == eval(formula, {}, values), (tuple(param.shape), formula)


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
    assert counted == declared(found.method, found.base, found.names)


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
    ending_by_role = {role: entry["name"] for role, entry in names["modules"].items()}
    for path, module in base.named_modules():
        endings = [end for end in ending_by_role.values() if f".{path}".endswith(f".{end}")]
        for role in getattr(method, "targets", ()):
            # Where two endings fit, the longer one says what the module is.
            if endings and ending_by_role[role] == max(endings, key=len):
                m, n = rows_and_columns(module)
                total += eval(method.TRAINABLE, {}, {**known, "m": m, "n": n, "role": role})
    return total


def rows_and_columns(module: nn.Module) -> tuple[int, int]:
    """(m, n) of W in W x; GPT-2's Conv1D keeps its matrix transposed."""
    if isinstance(module, Conv1D):
        return module.nf, module.nx
    return module.out_features, module.in_features
