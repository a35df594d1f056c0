"""Bottleneck adapters: where they sit, and that they train on every family of models.

test_conformance.py checks the entries on `tiny` and on Llama: start, training, counts, resuming.
"""

import copy

import pytest
import torch
from torch import nn

from helpers.peft_cases import build, logits, train
from rankwise.core.errors import Unsupported
from rankwise.measure.batch import meta_batch
from rankwise.methods.parts.base import adapt, load_method
from rankwise.models import storage

RANK = 4
PLACEMENTS = ("houlsby", "half_houlsby", "pfeiffer", "parallel")
NO_ENTRY_MODELS = [("minilm", "classification"), ("gpt2", "language_modelling")]
MODELS = [("tiny", "classification"), ("stories260k", "language_modelling"), *NO_ENTRY_MODELS]
ON_BRANCHES = ("houlsby", "half_houlsby", "parallel")
EVERYWHERE = [(*model, placement) for model in MODELS for placement in ON_BRANCHES]
ON_OTHERS = [(*model, placement) for model in NO_ENTRY_MODELS for placement in PLACEMENTS]
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


def prepare(
    name: str, task: str, placement: str, device: str = "cpu", **options: object
) -> nn.Module:
    model, names = build(name, task, device, "eager")
    torch.manual_seed(1)
    entry = {"module": "adapter", "options": {"rank": RANK, "placement": placement, **options}}
    with torch.device(device):
        return adapt(entry, model, names)[1]


def added(model: nn.Module) -> list[nn.Parameter]:
    return [param for name, param in model.named_parameters() if ".adapter." in name]


@pytest.mark.parametrize(("name", "task", "placement"), ON_OTHERS)
def test_adapters_and_a_new_head_train_from_the_base_on(
    name: str, task: str, placement: str
) -> None:
    base, names = build(name, task, attention="eager")
    adapted = prepare(name, task, placement)
    assert torch.equal(logits(adapted, task), logits(base, task))
    d, layers = names["hidden_size"], base.config.num_hidden_layers
    per_layer = 2 if placement == "houlsby" else 1
    numbers = sum(param.numel() for param in added(adapted))
    assert numbers == per_layer * layers * (2 * d * RANK + RANK + d)
    before = {path: param.detach().clone() for path, param in adapted.named_parameters()}
    train(adapted, task)
    moved = set()
    for path, param in adapted.named_parameters():
        should_move = ".adapter." in path or bool(set(path.split(".")) & set(names["new_head"]))
        assert param.requires_grad == should_move, path
        if not torch.equal(param, before[path]):
            moved.add(path)
    assert moved == {path for path, p in adapted.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(("name", "task", "placement"), ON_OTHERS)
def test_shapes_are_enough(name: str, task: str, placement: str) -> None:
    from_shapes = prepare(name, task, placement, "meta")
    shapes = [param.shape for param in added(prepare(name, task, placement))]
    assert [param.shape for param in added(from_shapes)] == shapes
    batch = meta_batch({"task": task, "batch_size": 2, "sequence_length_tokens": 8})
    from_shapes(**batch).logits.sum().backward()
    assert all(param.is_meta and param.grad is not None for param in added(from_shapes))


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


# The layer, and the module whose output is the layer's: the norm after the last addition, if there is one.
LAYERS = {
    "tiny": ("distilbert.transformer.layer.1", "output_layer_norm"),
    "minilm": ("bert.encoder.layer.1", "output.LayerNorm"),
    "stories260k": ("model.layers.1", ""),
    "gpt2": ("transformer.h.1", ""),
}


@pytest.mark.parametrize(("name", "task"), MODELS)
def test_pfeiffers_adapter_reads_the_sum_after_its_norm(name: str, task: str) -> None:
    """y = LN(z + f(LN(z))), z = x + h; without a norm after the addition y = z + f(z)."""
    found, seen = prepare(name, task, "pfeiffer", activation="tanh", scale=0.5), {}
    found.config.use_cache = False  # the layer is called a second time below
    torch.manual_seed(5)
    for param in added(found):
        nn.init.normal_(param, std=0.3)
    layer = found.get_submodule(LAYERS[name][0])
    end = layer.get_submodule(LAYERS[name][1])
    end.register_forward_hook(lambda module, args, out: seen.update(entered=args[0]))
    layer.register_forward_hook(lambda module, args, kwargs, out: seen.update(
        left=out, call=(args, kwargs)
    ), with_kwargs=True)  # fmt: skip
    logits(found, task)

    def f(hidden: torch.Tensor) -> torch.Tensor:
        return 0.5 * end.adapter.expand(torch.tanh(end.adapter.reduce(hidden)))

    with torch.no_grad():
        if end is layer:
            layer._forward_hooks.clear()
            args, kwargs = seen["call"]
            total = layer(*args, **kwargs)
            expected = total + f(total)
        else:
            norm, total = nn.functional.layer_norm, seen["entered"]
            settings = (end.normalized_shape, end.weight, end.bias, end.eps)
            expected = norm(total + f(norm(total, *settings)), *settings)
    torch.testing.assert_close(seen["left"], expected, atol=1e-6, rtol=1e-5)


def test_pfeiffers_adapter_refuses_layers_that_it_does_not_know() -> None:
    model, names = build("tiny", "classification", "meta")
    model.config.model_type = "deberta"
    entry = {"module": "adapter", "options": {"rank": 4, "placement": "pfeiffer"}}
    with pytest.raises(Unsupported, match=r"layers of bert, .*, roberta, not of deberta"):
        adapt(entry, model, names)


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
