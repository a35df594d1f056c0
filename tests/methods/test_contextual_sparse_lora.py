"""SparseLoRA's contextual sparsity: the chosen channels and no others are computed, exactly, and only when they should be."""

import copy

import pytest
import torch
import yaml
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from helpers.repository import ROOT
from rankwise.methods.contextual_sparse_lora import ContextualSparseLora
from rankwise.methods.lora import Lora
from rankwise.methods.parts.sparse_channels import ChannelLinear, key_scores, partners, strongest
from rankwise.models import build

MODELS = yaml.safe_load((ROOT / "config/models.yaml").read_text())
TASKS = {"tiny": "classification", "minilm": "classification", "stories260k": "language_modelling"}
MODELS["minilm"]["architecture"] |= {"num_hidden_layers": 2, "vocab_size": 512}  # less to draw
LORA = {"rank": 4, "targets": ("query", "value"), "alpha": 8.0}
NOW = {"start_step": 0, "dense_first": 0, "dense_last": 0}


def adapted(method: object, name: str, device: str = "cpu") -> nn.Module:
    torch.manual_seed(0)
    task = TASKS[name]
    model = build.from_shapes(
        MODELS[name], task, 2 * (task == "classification"), device, attention="eager"
    )
    prepared = method.prepare(model, build.names(MODELS[name], task))
    if device == "cpu":
        generator = torch.Generator().manual_seed(2)
        for param in (p for n, p in prepared.named_parameters() if "lora_B" in n):
            param.data.normal_(std=0.1, generator=generator)
    return prepared.train()


def batch(name: str) -> dict[str, torch.Tensor]:
    """Of a language model's 12 tokens the last four, in one sequence five, are labels."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(MODELS[name]["architecture"]["vocab_size"], (3, 12), generator=generator)
    if TASKS[name] == "classification":
        return {"input_ids": ids, "labels": torch.tensor([0, 1, 1])}
    labels = ids.clone()
    labels[:, :8] = -100
    labels[0, 7] = ids[0, 7]
    return {"input_ids": ids, "labels": labels}


def cut(model: nn.Module) -> list[ChannelLinear]:
    return [module for module in model.modules() if isinstance(module, ChannelLinear)]


def fit(method: object, model: nn.Module, name: str, steps: int) -> list[float]:
    torch.manual_seed(5)
    optimizer, losses = (
        torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2),
        [],
    )
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss = model(**batch(name)).loss
        loss.backward()
        optimizer.step()
        method.after_step(model, optimizer, step)
        losses.append(loss.item())
    return losses


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


class Masked(nn.Module):
    """The same channels by multiplying with zeros: the dense matrix, its unchosen rows or columns and their bias zero."""

    def __init__(self, linear: ChannelLinear):
        super().__init__()
        rows = linear.cut.__name__ == "linear_rows"
        keep = torch.zeros(
            linear.weight.shape[0 if rows else 1], dtype=linear.weight.dtype
        ).index_fill(0, linear.index, 1)
        weight = linear.weight * (keep[:, None] if rows else keep)
        bias = None if linear.bias is None else linear.bias * (keep if rows else 1)
        self.masked, self.dense, self.mode = (
            (weight, bias),
            (linear.weight, linear.bias),
            copy.copy(linear.mode),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(0, -2)
        out = nn.functional.linear(flat, *self.masked)
        if self.mode.outputs is not None:
            labelled = torch.zeros(len(flat), 1, dtype=torch.bool).index_fill(
                0, self.mode.outputs, value=True
            )
            out = torch.where(labelled, nn.functional.linear(flat, *self.dense), out)
        return out.unflatten(0, x.shape[:-1])


@pytest.mark.parametrize("output_tokens", ["dense", "sparse"])
@pytest.mark.parametrize("name", TASKS)
def test_logits_and_gradients_are_those_of_the_masked_dense_model(
    name: str, output_tokens: str
) -> None:
    method = ContextualSparseLora(
        **LORA, **NOW, ffn_sparsity=0.75, attention_sparsity=0.5, output_tokens=output_tokens
    )
    model = adapted(method, name).double()
    torch.manual_seed(3)  # the dropout of BERT
    found = model(**batch(name))
    found.loss.backward()
    twin = copy.deepcopy(model)
    twin.zero_grad()
    for path, linear in list(twin.named_modules()):
        if isinstance(linear, ChannelLinear):
            twin.set_submodule(path, Masked(linear))
    torch.manual_seed(3)
    wanted = twin(**batch(name))
    wanted.loss.backward()
    assert (
        len(cut(model))
        == len(twin_masks := [m for m in twin.modules() if isinstance(m, Masked)])
        > 0
    )
    assert torch.allclose(found.logits, wanted.logits, atol=1e-10)
    for key, grad in gradients(twin).items():
        assert torch.allclose(gradients(model)[key], grad, atol=1e-10), key
    labelled = output_tokens == "dense" and TASKS[name] == "language_modelling"
    assert {None if m.mode.outputs is None else len(m.mode.outputs) for m in twin_masks} == {
        13 if labelled else None
    }
    with torch.no_grad():  # and the masks are not idle
        assert not torch.allclose(model.eval()(**batch(name)).logits, found.logits, atol=1e-4)


@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_a_gathered_feed_forward_is_the_masked_dense_one(name: str) -> None:
    """In single precision, written out."""
    method = ContextualSparseLora(
        **LORA, **NOW, ffn_sparsity=0.75, attention_sparsity=0.0, output_tokens="sparse"
    )
    model = adapted(method, name)
    block = next(linear.chooser for linear in cut(model) if linear.chooser)
    parent = next(m for m in model.modules() if block.up in m.children())
    x = torch.randn(2, 9, 64)
    found = parent(x)
    keep = torch.zeros(block.up.out_features).index_fill(0, block.up.index, 1)
    assert keep.sum() == round(0.25 * block.up.out_features)
    with torch.no_grad():
        up = nn.functional.linear(x, block.up.weight, block.up.bias)
        hidden = (
            block.activation(up)
            if block.gate is None
            else block.activation(x @ block.gate.weight.mT) * up
        )
        wanted = nn.functional.linear(hidden * keep, block.down.weight, block.down.bias)
    assert torch.allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize("name", TASKS)
def test_a_full_rank_estimate_picks_what_the_exact_values_would(name: str) -> None:
    method = ContextualSparseLora(
        **LORA, **NOW, estimator_rank=1536, ffn_sparsity=0.6, attention_sparsity=0.5
    )
    model = adapted(method, name)
    for attention, block in _blocks(model):
        x = torch.randn(11, attention.query.in_features)
        attention.choose(x)
        block.choose(x)
        query, key, value = (
            nn.functional.linear(x, part.weight, part.bias) for part in attention.estimated
        )
        width = attention.query.out_features // attention.heads
        assert _same(attention.key.index, strongest(key_scores(query, key, width), 0.5))
        assert _same(attention.value.index, strongest(value.norm(dim=0), 0.5))
        first, *rest = (nn.functional.linear(x, part.weight, part.bias) for part in block.estimated)
        hidden = block.activation(first) * (rest[0] if rest else 1)
        assert _same(block.down.index, strongest(hidden.norm(dim=0), 0.6))


def _blocks(model: nn.Module) -> list[tuple]:
    choosers = [linear.chooser for linear in cut(model) if linear.chooser]
    return list(zip(choosers[::2], choosers[1::2], strict=True))


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return set(a.tolist()) == set(b.tolist())


def test_query_channels_are_cut_with_the_key_channel_that_they_meet() -> None:
    """Against the order in which transformers repeats key heads under grouped queries."""
    key_heads, groups, width = 4, 2, 8
    met = (
        torch.arange(key_heads * width)
        .view(key_heads, width)
        .repeat_interleave(groups, dim=0)
        .flatten()
    )
    index = torch.tensor([0, 9, 15, 30])
    assert _same(partners(index, groups, width), torch.isin(met, index).nonzero().flatten())
    query, key = torch.randn(5, 64), torch.randn(5, 32)
    wanted = [key[:, j].norm() * query[:, met == j].norm() for j in range(32)]
    assert torch.allclose(key_scores(query, key, width), torch.stack(wanted), atol=1e-5)


@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_at_sparsity_0_it_is_lora_to_the_bit(name: str) -> None:
    lora, method = (
        Lora(**LORA, dropout=0.1),
        ContextualSparseLora(**LORA, **NOW, dropout=0.1, ffn_sparsity=0, attention_sparsity=0),
    )
    found = {}
    for each in (lora, method):
        model = adapted(each, name)
        fit(each, model, name, 4)
        found[each] = model.state_dict()
    assert found[lora].keys() == found[method].keys()
    assert all(torch.equal(found[lora][key], value) for key, value in found[method].items())


@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_it_is_dense_in_evaluation_and_until_its_start(name: str) -> None:
    lora = Lora(**LORA)
    method = ContextualSparseLora(**LORA, start_step=3, dense_first=1, dense_last=0)
    dense, sparse = adapted(lora, name), adapted(method, name)
    a, b = fit(lora, dense, name, 5), fit(method, sparse, name, 5)
    assert a[:3] == b[:3]
    assert a[3] != b[3]
    active = adapted(ContextualSparseLora(**LORA, **NOW), name).eval()
    with torch.no_grad():
        assert torch.equal(
            active(**batch(name)).logits, adapted(lora, name).eval()(**batch(name)).logits
        )


def test_feed_forward_sparsity_leaves_labelled_tokens_untouched() -> None:
    method = ContextualSparseLora(**LORA, **NOW, ffn_sparsity=0.9, attention_sparsity=0.0)
    model = adapted(method, "stories260k")
    seen = []
    mlp = next(m for m in model.modules() if type(m).__name__ == "LlamaMLP")
    mlp.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    model(**batch("stories260k"))
    with torch.no_grad():
        wanted = mlp.eval()(seen[0][0])
    labelled = batch("stories260k")["labels"] != -100
    assert torch.allclose(seen[0][1][labelled], wanted[labelled], atol=1e-6)
    assert (seen[0][1] - wanted)[~labelled].abs().amax(-1).min() > 1e-5


@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_flops_fall_by_the_sparse_share_and_the_estimate_is_what_it_costs(name: str) -> None:
    shared = {**LORA, "start_step": 0, "dense_first": 1, "dense_last": 0}
    method = ContextualSparseLora(**shared, ffn_sparsity=0.75, attention_sparsity=0.5)
    dense, sparse = adapted(Lora(**LORA), name, "meta"), adapted(method, name, "meta")
    tokens, r = 3 * 12, 8
    parts = {
        role: part
        for pair in _blocks(sparse)
        for block in pair
        for role, part in vars(block).items()
        if part in cut(sparse)
    }
    layers = len(_blocks(sparse))
    saved = 0
    for role, linear in parts.items():
        sparsity = 0.75 if role in ("gate", "up", "down") else 0.5
        width = linear.weight.shape[1 if role in ("output", "down") else 0]
        kept = round((1 - sparsity) * width)
        saved += layers * 2 * tokens * linear.weight.numel() * (width - kept) // width
    cost = sum(
        2 * tokens * r * (m.in_features + m.out_features) for m in cut(sparse) if hasattr(m, "left")
    )
    forward, backward = zip(*(_flops(model) for model in (dense, sparse)), strict=True)
    assert forward[0] - forward[1] == saved - cost
    assert backward[0] - backward[1] == saved


def _flops(model: nn.Module) -> tuple[int, int]:
    ids = torch.zeros(3, 12, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as forward:
        logits = model(
            input_ids=ids, attention_mask=torch.zeros(3, 1, 12, 12, device="meta")
        ).logits
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


def test_without_gradients_through_the_base_there_are_none() -> None:
    targets = ("query", "value", "output", "up", "down")
    name, options = (
        "tiny",
        {**LORA, **NOW, "targets": targets, "ffn_sparsity": 0.5, "attention_sparsity": 0.5},
    )
    exact, released = (
        adapted(ContextualSparseLora(**options, gradients=g), name)
        for g in ("exact", "none_through_base")
    )
    outputs = []
    for linear in cut(released):
        linear.register_forward_hook(lambda _, inputs, output: outputs.append(output.requires_grad))
    found = [model(**batch(name)) for model in (exact, released)]
    assert torch.equal(found[0].logits, found[1].logits)
    assert not any(outputs)
    for output in found:
        output.loss.backward()
    first = next(key for key in gradients(exact) if "layer.0" in key and "lora_B" in key)
    assert not torch.allclose(gradients(exact)[first], gradients(released)[first], rtol=0.05)


@pytest.mark.parametrize("name", TASKS)
def test_merged_it_is_the_bases_own_modules(name: str) -> None:
    method = ContextualSparseLora(**LORA, **NOW)
    model = adapted(method, name).eval()
    with torch.no_grad():
        wanted = model(**batch(name)).logits
        merged = method.merge(model)
        assert torch.allclose(merged(**batch(name)).logits, wanted, atol=1e-5)
    plain = build.from_shapes(MODELS[name], TASKS[name], 2 * (TASKS[name] == "classification"))
    assert [type(m) for m in merged.modules()] == [type(m) for m in plain.modules()]
    assert merged.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_training_goes_on_and_two_runs_are_equal_to_the_bit(name: str) -> None:
    method = ContextualSparseLora(**LORA, start_step=3, dense_first=1, dense_last=0)
    first, second = (fit(method, adapted(method, name), name, 12) for _ in range(2))
    assert first == second
    assert first[-1] < first[4] < first[0]


def test_what_it_cannot_do_it_says() -> None:
    gpt2 = build.from_shapes(MODELS["gpt2"], "language_modelling", 0)
    tiny = build.from_shapes(MODELS["tiny"], "classification", 2)
    names = {name: build.names(MODELS[name], "classification") for name in ("gpt2", "tiny")}
    assert "not of gpt2" in ContextualSparseLora(4, ("attention",)).unsupported(gpt2, names["gpt2"])
    assert "leave no layer" in ContextualSparseLora(**LORA).unsupported(tiny, names["tiny"])
    assert ContextualSparseLora(**LORA, dense_last=0).unsupported(tiny, names["tiny"]) is None
    with pytest.raises(ValueError, match="ffn_sparsity: got 1, allowed: 0 or more, below 1"):
        ContextualSparseLora(**LORA, ffn_sparsity=1)
