"""One entry of config/methods.yaml on a small model: an adapted model, a batch and an optimizer."""

import copy
import functools
import io
from pathlib import Path

import torch
from torch import nn

from rankwise.core import config, paths
from rankwise.methods.parts.base import (
    adapt,
    build_optimizer,
    load_method,
    optimizer_class,
    set_parameters,
    unreleased,
)
from rankwise.models import build, storage
from rankwise.optim.parts.waiting import trains
from rankwise.study.plan import Plan

# Moves what is rare (truncation, a new basis) into the first steps of Rankwise's own entries.
SMOKE = "config/methods_smoke.yaml"
RANK, LENGTH, BATCH, PROFILE_BATCH = 4, 12, 6, 2
HIGHEST_TOKEN = 90  # every vocabulary has these


@functools.cache
def plan_of(project: Path, model: str, name: str | None = None) -> Plan:
    """The plan of memory and FLOPs profiles on one model.

    Args:
        project: a folder with its own or Rankwise's entries.
        model: a name in config/models.yaml.
        name: an entry; every entry if None.

    Raises:
        ConfigError: there is no such model or entry, or the entry is wrong.
    """
    library = config.library(project)
    overrides = config.read_yaml(paths.find(project, SMOKE), SMOKE)["override"]
    if name is not None:
        config.pick(library["methods"], name, "config/methods.yaml", "entry")
        overrides = {key: value for key, value in overrides.items() if key == name}
    grid = {
        "models": [model],
        "datasets": [config.first_dataset(library, model)],
        "methods": "all" if name is None else [name],
        "ranks": [RANK],
        "batch_size": PROFILE_BATCH,
        "sequence_length_tokens": LENGTH,
        "measurements": ["memory", "flops"],
    }
    study = {"name": "conformance", "question": "?", "device": "cpu", "profile": [grid]}
    return Plan({**study, "override": overrides}, project, "rankwise test")


def request_of(name: str, model: str, measurement: str = "memory", *, project: Path) -> dict:
    """The request of a profile of one entry, for the caller to change.

    Args:
        name: the entry's name.
        model: a name in config/models.yaml.
        measurement: memory or flops.
        project: a folder with its own or Rankwise's entries.
    """
    plan = plan_of(project, model, name)
    return copy.deepcopy(plan.request(measurement, plan.cells(measurement)[0]))


class Case:
    """One entry on one small model, with random weights.

    Args:
        request: of a profile of the entry, from `request_of`.
        seed: of the weights and of the optimizer.
        release: whether the optimizer steps inside backward, if the entry says so.

    Raises:
        Unsupported: the method or the optimizer cannot do this model; the message is the reason.
    """

    def __init__(self, request: dict, *, seed: int = 0, release: bool = True):
        self.request = request
        shapes = self.request["shapes"]
        task, classes = shapes["task"], shapes["classes"]
        entry = self.request["method"] if release else unreleased(self.request["method"])
        optimizer = optimizer_class(entry["optimizer"]["module"])
        self.forward_only = getattr(optimizer, "FORWARD_ONLY", False)
        # A step of random direction is as long as the gradient times the root of all numbers.
        self.entry = {**entry, "learning_rate": 1e-4 if self.forward_only else 5e-3}
        self.names = build.names(self.request["model"], task)
        tokens = self.request["model"]["architecture"]["vocab_size"]
        torch.manual_seed(seed)
        base = build.from_shapes(self.request["model"], task, classes, "cpu")
        self.batch = make_batch(classes, tokens)
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
        """What trains, by name."""
        parameters = self.model.named_parameters()
        return {name: param for name, param in parameters if trains(param)}

    def train(self, steps: int) -> list[float]:
        """Losses on the one batch, of so many steps.

        Dropout draws from the step's number, so that a resumed run draws the same.
        """
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


def make_batch(classes: int, tokens: int = HIGHEST_TOKEN) -> dict[str, torch.Tensor]:
    """A batch of random texts, the same in every call.

    Args:
        classes: of the labels; 0: the labels are the tokens.
        tokens: how many the model knows.
    """
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, min(tokens, HIGHEST_TOKEN), (BATCH, LENGTH), generator=generator)
    labels = torch.randint(0, classes, (BATCH,), generator=generator) if classes else ids.clone()
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    """Answers on a batch of its own, in evaluation; the model stays in the mode that it was in."""
    was_training = model.training
    ids = torch.randint(3, HIGHEST_TOKEN, (3, LENGTH), generator=torch.Generator().manual_seed(2))
    answers = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
    model.train(was_training)
    return answers
