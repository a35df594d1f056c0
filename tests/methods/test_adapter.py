"""Bottleneck adapters: where they sit, that they start as nothing, that the base stays, and how many numbers they train."""

import copy

import pytest
import torch
import yaml
from torch import nn

from helpers.repository import ROOT
from rankwise.core.errors import Unsupported
from rankwise.measure.batch import meta_batch
from rankwise.methods.parts.base import adapt, load_method
from rankwise.models import build as models
from rankwise.models import storage

LIBRARY = yaml.safe_load((ROOT / "config/models.yaml").read_text())
SMALL = {
    "minilm": {"num_hidden_layers": 2, "vocab_size": 96, "hidden_size": 48, "intermediate_size": 96, "hidden_dropout_prob": 0.0,
               "attention_probs_dropout_prob": 0.0},
    "gpt2": {"vocab_size": 96, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
             "attn_pdrop": 0.0, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2},
}  # fmt: skip
WIDTH = {"minilm": 48, "gpt2": 32}
ROLES = {
    "minilm": {
        "output": "attention.output.dense",
        "up": "intermediate.dense",
        "down": "output.dense",
    },
    "stories260k": {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"},
    "gpt2": {"output": "attn.c_proj", "down": "mlp.c_proj"},
}
MODELS = [
    ("tiny", "classification"),
    ("minilm", "classification"),
    ("stories260k", "language_modelling"),
    ("gpt2", "language_modelling"),
]
PLACEMENTS = ("houlsby", "pfeiffer", "parallel")
EVERYWHERE = [(*model, placement) for model in MODELS for placement in PLACEMENTS]
# The block's modules whose outputs meet the residual: attention, feed-forward.
BRANCHES = {
    "tiny": (
        "distilbert.transformer.layer.1.attention.out_lin",
        "distilbert.transformer.layer.1.ffn",
    ),
    "minilm": ("bert.encoder.layer.1.attention.output.dense", "bert.encoder.layer.1.output.dense"),
    "stories260k": ("model.layers.1.self_attn.o_proj", "model.layers.1.mlp"),
    "gpt2": ("transformer.h.1.attn.c_proj", "transformer.h.1.mlp"),
}


def build(name: str, task: str, device: str = "cpu") -> tuple[nn.Module, dict]:
    entry = copy.deepcopy(LIBRARY[name])
    entry["architecture"] |= SMALL.get(name, {})
    entry["hidden_size"] = WIDTH.get(name, entry["hidden_size"])
    entry["modules"] |= {role: {"name": module} for role, module in ROLES.get(name, {}).items()}
    torch.manual_seed(0)
    model = models.from_shapes(entry, task, 2 if task == "classification" else 0, device, "eager")
    return model.eval(), models.names(entry, task)


def prepare(
    name: str, task: str, placement: str, device: str = "cpu", seed: int = 1, **options: object
) -> nn.Module:
    model, names = build(name, task, device)
    torch.manual_seed(seed)
    with torch.device(device):
        return adapt(
            {"module": "adapter", "options": {"rank": 4, "placement": placement, **options}},
            model,
            names,
        )[1]


def batch(task: str) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 96, (4, 10), generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([0, 1, 1, 0]) if task == "classification" else ids
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def train(model: nn.Module, task: str) -> None:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        model(**batch(task)).loss.backward()
        optimizer.step()


@torch.no_grad()
def logits(model: nn.Module, task: str) -> torch.Tensor:
    return model(**batch(task)).logits


def added(model: nn.Module) -> list[nn.Parameter]:
    return [param for name, param in model.named_parameters() if ".adapter." in name]


@pytest.mark.parametrize(("name", "task", "placement"), EVERYWHERE)
def test_the_start_is_the_base_to_the_bit(name: str, task: str, placement: str) -> None:
    assert torch.equal(
        logits(prepare(name, task, placement), task), logits(build(name, task)[0], task)
    )


@pytest.mark.parametrize(("name", "task", "placement"), EVERYWHERE)
def test_the_closed_form_counts_the_adapters_and_houlsby_has_two_a_layer(
    name: str, task: str, placement: str
) -> None:
    model, names = build(name, task)
    d, k, layers = names["hidden_size"], 4, model.config.num_hidden_layers
    found = sum(param.numel() for param in added(prepare(name, task, placement)))
    assert found == (2 if placement == "houlsby" else 1) * layers * (2 * d * k + k + d)
    method = load_method({"module": "adapter", "options": {"rank": k, "placement": placement}})
    assert found == eval(method.MODEL, {}, {**vars(method), "r": k, "d": d, "h": layers})


@pytest.mark.parametrize(("name", "task", "placement"), EVERYWHERE)
def test_training_moves_the_adapters_and_the_head_and_leaves_the_base_to_the_bit(
    name: str, task: str, placement: str
) -> None:
    found = prepare(name, task, placement)
    names = build(name, task)[1]
    before = {n: p.detach().clone() for n, p in found.named_parameters()}
    train(found, task)
    moved = {n for n, p in found.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {
        n for n in before if ".adapter." in n or set(n.split(".")) & set(names["new_head"])
    }
    assert {n for n, p in found.named_parameters() if p.requires_grad} == moved
    base = dict(build(name, task)[0].named_parameters())
    assert all(torch.equal(before[n], base[n]) for n in base)


@pytest.mark.parametrize(("name", "task", "placement"), EVERYWHERE)
def test_shapes_are_enough(name: str, task: str, placement: str) -> None:
    found = prepare(name, task, placement, "meta")
    assert [p.shape for p in added(found)] == [
        p.shape for p in added(prepare(name, task, placement))
    ]
    found(**meta_batch({"batch_size": 2, "sequence_length_tokens": 8})).logits.sum().backward()
    assert all(param.is_meta and param.grad is not None for param in added(found))


@pytest.mark.parametrize(("name", "task", "placement"), EVERYWHERE)
def test_what_is_added_and_where(name: str, task: str, placement: str) -> None:
    """Inputs and outputs of a block's two branches, with the adapters on and off, against the formula."""
    found, seen = prepare(name, task, placement, activation="tanh", scale=0.5), {}
    torch.manual_seed(5)
    for param in added(found):
        nn.init.normal_(param, std=0.3)
    attention, forward = (found.get_submodule(branch) for branch in BRANCHES[name])
    entrance = found.bert.encoder.layer[1].intermediate if name == "minilm" else forward
    attention.register_forward_hook(lambda module, args, out: seen.update(attention=(args[0], out)))
    entrance.register_forward_pre_hook(lambda module, args: seen.update(entrance=args[0]))
    forward.register_forward_hook(lambda module, args, out: seen.update(forward=(args[0], out)))
    logits(found, task)

    inside = [module.adapter for module in forward.modules() if hasattr(module, "adapter")]

    def expected(bottleneck: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        return 0.5 * bottleneck.expand(torch.tanh(bottleneck.reduce(hidden)))

    with torch.no_grad():
        plain = {"attention": attention, "forward": forward}
        for module in found.modules():
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
        plain = {branch: module(seen[branch][0]) for branch, module in plain.items()}
        if placement == "parallel":
            plain["forward"] += expected(
                inside[0] if inside else entrance.dense.adapter, seen["entrance"]
            )
        else:
            plain["forward"] += expected(inside[0], plain["forward"])
        if placement == "houlsby":
            plain["attention"] += expected(attention.adapter, plain["attention"])
    for branch, value in plain.items():
        torch.testing.assert_close(seen[branch][1], value, atol=1e-6, rtol=1e-5)


def test_a_copy_has_adapters_of_its_own() -> None:
    first = prepare("tiny", "classification", "parallel")
    second = copy.deepcopy(first)
    start = logits(second, "classification")
    train(first, "classification")
    assert torch.equal(logits(second, "classification"), start)


@pytest.mark.parametrize("weights", ["bf16", "nf4"])
def test_adapters_are_fp32_whatever_the_base_is_stored_as(weights: str) -> None:
    model, names = build("tiny", "classification")
    stored = storage.store(model, weights, names)
    start = logits(stored, "classification")
    found = adapt({"module": "adapter", "options": {"rank": 4}, "weights": weights}, stored, names)[
        1
    ]
    assert {param.dtype for param in added(found)} == {torch.float32}
    assert torch.equal(logits(found, "classification"), start)
    train(found, "classification")
    assert not torch.equal(logits(found, "classification"), start)


def test_a_seed_decides_every_bit() -> None:
    def run(seed: int) -> torch.Tensor:
        found = prepare("tiny", "classification", "houlsby", seed=seed)
        train(found, "classification")
        return logits(found, "classification")

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_a_model_without_the_roles_is_refused() -> None:
    model, names = build("tiny", "classification", "meta")
    less = {
        **names,
        "modules": {
            role: module for role, module in names["modules"].items() if role in ("query", "up")
        },
    }
    with pytest.raises(Unsupported, match="names no module for output and down"):
        adapt({"module": "adapter", "options": {"rank": 4}}, model, less)
    assert load_method({"module": "adapter", "options": {"rank": 4}}).merge(model) is None
