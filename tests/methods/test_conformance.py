"""Every entry of config/methods.yaml keeps the same promises; a new entry is found by itself."""

import copy
import io
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from helpers.repository import ROOT
from rankwise.core.errors import Unsupported
from rankwise.measure.flops.count import flops
from rankwise.measure.memory.persistent import memory
from rankwise.methods.parts.base import adapt, build_optimizer, optimizer_class, unreleased
from rankwise.models import build, storage
from rankwise.study.plan import Plan

METHODS = yaml.safe_load((ROOT / "config/methods.yaml").read_text())
ENTRIES = list(METHODS)
SMOKE = yaml.safe_load((ROOT / "config/methods_smoke.yaml").read_text())
TASKS = {
    "tiny": ("generated_reviews", "classification", 2),
    "stories260k": ("wikitext2_files", "language_modelling", 0),
}
RANK, LENGTH, BATCH = 4, 12, 6


def grid(model: str, dataset: str, name: str) -> dict:
    return {"models": [model], "datasets": [dataset], "methods": [name], "ranks": [RANK], "batch_size": 2,
            "sequence_length_tokens": LENGTH, "measurements": ["memory", "flops"]}  # fmt: skip


def request_of(name: str, model: str, measurement: str = "memory") -> dict:
    study = {"name": "conformance", "question": "?", "device": "cpu", "override": SMOKE["override"]}
    plan = Plan({**study, "profile": [grid(model, TASKS[model][0], name)]}, ROOT)
    return plan.request(measurement, plan.cells(measurement)[0])


class Case:
    """One entry on one small model with random weights, adapted; a batch; an optimizer."""

    def __init__(
        self,
        name: str,
        model: str,
        learning_rate: float = 5e-3,
        seed: int = 0,
        release: bool = True,
    ):
        request, (_, task, classes) = request_of(name, model), TASKS[model]
        entry = request["method"] if release else unreleased(request["method"])
        self.entry = {**entry, "learning_rate": learning_rate}
        self.names = build.names(request["model"], task)
        torch.manual_seed(seed)
        base = build.from_shapes(request["model"], task, classes, "cpu")
        self.base = storage.store(base, self.entry["weights"], self.names)
        self.before = self.logits(self.base)
        self.method, self.model = adapt(self.entry, copy.deepcopy(self.base), self.names)
        self.batch = self._batch(classes)
        self.model.train()
        self.optimizer = (
            build_optimizer(self.entry, self.method, self.model, self.names, seed)
            if self.trainable()
            else None
        )
        self.step = 0

    def _batch(self, classes: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(3, 90, (BATCH, LENGTH), generator=generator)
        labels = (
            torch.randint(0, classes, (BATCH,), generator=generator) if classes else ids.clone()
        )
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: param for name, param in self.model.named_parameters() if param.requires_grad}

    @torch.no_grad()
    def logits(self, model: nn.Module) -> torch.Tensor:
        ids = torch.randint(3, 90, (3, LENGTH), generator=torch.Generator().manual_seed(2))
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()

    def train(self, steps: int) -> list[float]:
        """Losses on the one batch; dropout draws from the step, so that a resumed run draws the same."""
        losses = []
        for _ in range(steps):
            self.step += 1
            torch.manual_seed(self.step)
            self.optimizer.zero_grad()
            loss = self.model(**self.batch).loss
            loss.backward()
            self.optimizer.step()
            self.method.after_step(self.model, self.optimizer, self.step)
            losses.append(loss.item())
        return losses

    def save(self) -> bytes:
        saved = io.BytesIO()
        torch.save(
            {"model": storage.learnt(self.model), "optimizer": self.optimizer.state_dict()}, saved
        )
        return saved.getvalue()


def case(name: str, model: str, **settings: object) -> Case:
    try:
        return Case(name, model, **settings)
    except Unsupported as error:
        assert len(str(error).split()) > 3, "a reason is a sentence"
        pytest.skip(f"unsupported: {error}")


every = pytest.mark.parametrize("name", ENTRIES)
both = pytest.mark.parametrize(
    "model", ["tiny", pytest.param("stories260k", marks=pytest.mark.slow)]
)
trained = pytest.mark.parametrize("name", [name for name in ENTRIES if name != "frozen"])


def test_the_smoke_study_has_every_entry() -> None:
    assert sorted(name for part in SMOKE["train"] for name in part["methods"]) == sorted(ENTRIES)


@both
@every
def test_it_starts_as_the_model_it_was_made_of(name: str, model: str) -> None:
    found = case(name, model)
    gap = (found.logits(found.model) - found.before).abs().max().item()
    rounding = 2e-2 if found.entry["weights"] == "bf16" else 1e-5
    assert not found.method.IDENTITY or gap <= rounding, gap


@both
@trained
def test_training_moves_what_trains_and_nothing_else(name: str, model: str) -> None:
    """The loss of one batch falls; frozen parameters stay bitwise; gradients come out of a step as they went in."""
    found = case(name, model)
    frozen = {
        n: p.detach().clone() for n, p in found.model.named_parameters() if not p.requires_grad
    }
    start = {n: p.detach().clone() for n, p in found.trainable().items()}
    losses = found.train(25)
    assert min(losses[-3:]) < losses[0], losses
    now = dict(found.model.named_parameters())
    assert all(torch.equal(now[n], p) for n, p in frozen.items())
    assert any(now[n].shape != p.shape or not torch.equal(now[n], p) for n, p in start.items())


@trained
def test_a_step_does_not_touch_gradients(name: str) -> None:
    found = case(name, "tiny", release=False)
    for _ in range(2):
        found.optimizer.zero_grad()
        found.model(**found.batch).loss.backward()
        grads = {n: p.grad.clone() for n, p in found.trainable().items() if p.grad is not None}
        assert grads
        found.optimizer.step()
        assert all(torch.equal(found.trainable()[n].grad, grad) for n, grad in grads.items())


@pytest.mark.slow
@trained
def test_two_runs_are_equal_to_the_bit(name: str) -> None:
    runs = [case(name, "tiny") for _ in range(2)]
    assert runs[0].train(6) == runs[1].train(6)
    states = [run.model.state_dict() for run in runs]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.slow
@trained
def test_a_resumed_run_is_the_uninterrupted_one(name: str) -> None:
    whole, first = case(name, "tiny"), case(name, "tiny")
    whole.train(12)
    first.train(9)
    saved = torch.load(io.BytesIO(first.save()), weights_only=True)
    second = case(name, "tiny")
    second.step = 9
    second.method.resume(second.model, second.step)
    assert not second.model.load_state_dict(saved["model"], strict=False).unexpected_keys
    second.optimizer.load_state_dict(saved["optimizer"])
    second.train(3)
    theirs = dict(whole.model.named_parameters())
    assert all(torch.equal(param, theirs[key]) for key, param in second.model.named_parameters())


@both
@every
def test_state_and_weights_are_predicted_to_the_byte(name: str, model: str) -> None:
    """A profile fails where prediction and measurement differ."""
    found = memory(request_of(name, model))
    if found.get("status") == "unsupported":
        pytest.skip(found["reason"])
    assert (
        found["metrics"]["measured_optimizer_state_bytes"]
        == found["metrics"]["optimizer_state_bytes"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in ENTRIES if METHODS[name].get("weights", "fp32") == "fp32"]
)
def test_bf16_is_predicted_to_the_byte(name: str) -> None:
    request = request_of(name, "tiny")
    found = memory({**request, "method": {**request["method"], "weights": "bf16"}})
    assert (
        found.get("status") == "unsupported"
        or found["metrics"]["measured_weights_bytes"] == found["metrics"]["weights_bytes"]
    )


@trained
def test_state_is_its_formula(name: str) -> None:
    """The numbers of docs/methods.md: the optimizer's formula summed over what trains."""
    found = case(name, "tiny", release=False)
    options = {key: value for key, value in found.entry["optimizer"].items() if key != "module"}
    optimizer = optimizer_class(found.entry["optimizer"]["module"])
    if found.entry["optimizer"]["module"] in ("adamw_8bit", "paged_adamw"):
        pytest.skip("bytes, not numbers: tests/optim/test_bitsandbytes.py")
    built = found.optimizer
    for param in found.trainable().values():
        param.grad = torch.randn_like(param)
    built.step()
    for group in built.param_groups:
        for param in group["params"]:
            kept = sum(
                value.numel() for value in built.state[param].values() if torch.is_tensor(value)
            )
            matrix = param.ndim >= 2 and not group.get("dense")
            formula = (
                optimizer.formula(**options)
                if matrix
                else optimizer.DENSE
                if param.ndim >= 2
                else optimizer.VECTOR
            )
            assert kept == eval(formula, {}, {**options, **_sides(built, group, param)}), (
                param.shape,
                formula,
            )


def _sides(optimizer: torch.optim.Optimizer, group: dict, param: nn.Parameter) -> dict[str, int]:
    if param.ndim < 2 or group.get("dense"):
        rows, columns = (param.shape[0], param[0].numel()) if param.ndim >= 2 else (0, 0)
        return {"k": param.numel(), "m": rows, "n": columns}
    sides = {"m": param.shape[0], "n": param[0].numel()}
    space = (
        getattr(optimizer.descent(group, param), "space", None)
        if hasattr(optimizer, "descent")
        else None
    )
    return {**sides, **(dict(zip("sLr", space.shape(param), strict=True)) if space else {})}


@both
@every
def test_declared_parameters_are_counted(name: str, model: str) -> None:
    found = case(name, model)
    if (type(found.method).TRAINABLE, type(found.method).MODEL) == ("0", "0"):
        pytest.skip("trains parts of the model as they are")
    head = {
        id(p)
        for n, m in found.model.named_modules()
        for p in m.parameters()
        if set(n.split(".")) & set(found.names["new_head"])
    }
    counted = sum(storage.numel(p) for p in found.trainable().values() if id(p) not in head)
    assert counted == declared(found)


def declared(found: Case) -> int:
    """TRAINABLE over the target matrices of the base, and MODEL once."""
    options = {
        **found.entry["options"],
        "r": found.entry["options"].get("rank", 0),
        "d": found.names["hidden_size"],
    }
    options["h"] = len(
        next(module for module in found.base.modules() if isinstance(module, nn.ModuleList))
    )
    roles = found.entry["options"].get("targets", getattr(found.method, "targets", ()))
    names = {module["name"] for module in found.names["modules"].values()}
    by_name = {found.names["modules"][role]["name"]: role for role in roles}
    total = eval(type(found.method).MODEL, {}, options)
    for path, module in found.base.named_modules():
        for name, role in by_name.items():
            if f".{path}".endswith(f".{name}") and longest(path, names) == name:
                sides = {"m": module.out_features, "n": module.in_features, "role": role}
                total += eval(type(found.method).TRAINABLE, {}, {**options, **sides})
    return total


def longest(path: str, names: set[str]) -> str:
    """The most specific of the module names that `path` ends with: BERT has output.dense and attention.output.dense."""
    return max((name for name in names if f".{path}".endswith(f".{name}")), key=len)


@both
@trained
def test_merged_answers_as_unmerged(name: str, model: str) -> None:
    found = case(name, model)
    found.train(3)
    found.model.eval()
    dense = (
        storage.dequantize(found.model)
        if found.entry["weights"] not in ("fp32", "bf16")
        else found.model
    )
    answer = found.logits(dense)
    merged = found.method.merge(dense)
    if merged is None:
        pytest.skip("does not merge")
    rounding = 5e-2 if found.entry["weights"] == "bf16" else 2e-5
    assert torch.allclose(found.logits(merged), answer, atol=rounding, rtol=1e-4)


@both
@every
def test_flops_are_counted_from_shapes(name: str, model: str) -> None:
    found = flops(request_of(name, model, "flops"))
    assert found.get("status") == "unsupported" or found["metrics"]["forward_flops"] > 0


def test_every_method_file_has_an_entry() -> None:
    modules = {entry["module"] for entry in METHODS.values()}
    files = {path.stem for path in Path(ROOT / "src/rankwise/methods").glob("*.py")} - {"__init__"}
    assert files == modules


@pytest.mark.parametrize(("module", "options", "gibibytes"), [
    ("projected_adam", {"rank": 128}, 1.95), ("apollo", {"rank": 128}, 1.51), ("apollo", {"rank": 1, "scaling": "tensor"}, 0.012),
    ("projfactor", {"rank": 1, "granularity": 256}, 1.52), ("projfactor", {"rank": 64, "granularity": 4}, 1.52),
    ("flora", {"rank": 128}, 0.76), ("adalomo", {}, 0.009),
])  # fmt: skip
def test_state_of_llama_2_7b_is_the_papers(module: str, options: dict, gibibytes: float) -> None:
    """What its linear layers keep, from shapes: 32 blocks of four square matrices and three of the feed-forward layer."""
    shapes = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]
    params = [nn.Parameter(torch.empty(shape, device="meta")) for shape in shapes * 32]
    optimizer = optimizer_class(module)(params, lr=1e-3, **options)
    optimizer.allocate()
    kept = [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if torch.is_tensor(value)
    ]
    size = sum(value.numel() * value.element_size() for value in kept) / 2**30
    assert size == pytest.approx(gibibytes, abs=0.5 * 10 ** -len(str(gibibytes).partition(".")[2]))
