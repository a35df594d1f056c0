"""SparseLoRA's contextual sparsity: the chosen channels alone are computed, exactly, and only
when they should be."""

import copy
from collections.abc import Iterator

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
# Fewer layers and words, so that its random weights are drawn faster.
MODELS["minilm"]["architecture"] |= {"num_hidden_layers": 2, "vocab_size": 512}
LORA = {"rank": 4, "targets": ("query", "value"), "alpha": 8.0}
# Sparse from the first step and in every layer.
ALWAYS = {"start_step": 0, "dense_first": 0, "dense_last": 0}


def build_model(name: str, device: str = "cpu", **options: object) -> nn.Module:
    task = TASKS[name]
    classes = 2 if task == "classification" else 0
    return build.from_shapes(MODELS[name], task, classes, device, **options)


def build_adapted(method: object, name: str, device: str = "cpu") -> nn.Module:
    """The adapted model in training mode. On a CPU, LoRA's B is random instead of zero."""
    torch.manual_seed(0)
    model = build_model(name, device, attention="eager")
    prepared = method.prepare(model, build.names(MODELS[name], TASKS[name]))
    if device == "cpu":
        generator = torch.Generator().manual_seed(2)
        for param_name, param in prepared.named_parameters():
            if "lora_B" in param_name:
                param.data.normal_(std=0.1, generator=generator)
    return prepared.train()


def batch(name: str) -> dict[str, torch.Tensor]:
    """Three sequences of 12 tokens. A language model has labels on the last four (once: five)."""
    vocabulary = MODELS[name]["architecture"]["vocab_size"]
    ids = torch.randint(vocabulary, (3, 12), generator=torch.Generator().manual_seed(1))
    if TASKS[name] == "classification":
        return {"input_ids": ids, "labels": torch.tensor([0, 1, 1])}
    labels = ids.clone()
    labels[:, :8] = -100
    labels[0, 7] = ids[0, 7]
    return {"input_ids": ids, "labels": labels}


def channel_layers(model: nn.Module) -> list[ChannelLinear]:
    return [module for module in model.modules() if isinstance(module, ChannelLinear)]


def fit(method: object, model: nn.Module, name: str, steps: int) -> list[float]:
    """Train. Return the loss of each step."""
    torch.manual_seed(5)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    losses = []
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
    """Selects the same channels by zeros.

    It multiplies with the dense matrix, whose unchosen rows (with their bias) or columns are zero.
    """

    def __init__(self, linear: ChannelLinear):
        super().__init__()
        self.mode = copy.copy(linear.mode)
        self.dense = (linear.weight, linear.bias)
        cuts_rows = linear.cut.__name__ == "linear_rows"
        width = linear.weight.shape[0 if cuts_rows else 1]
        keep = torch.zeros(width, dtype=linear.weight.dtype).index_fill(0, linear.index, 1)
        weight = linear.weight * (keep[:, None] if cuts_rows else keep)
        bias = linear.bias
        if bias is not None and cuts_rows:
            bias = bias * keep
        self.masked = (weight, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(0, -2)
        out = nn.functional.linear(tokens, *self.masked)
        if self.mode.outputs is not None:
            is_labelled = torch.zeros(len(tokens), 1, dtype=torch.bool)
            is_labelled = is_labelled.index_fill(0, self.mode.outputs, value=True)
            out = torch.where(is_labelled, nn.functional.linear(tokens, *self.dense), out)
        return out.unflatten(0, x.shape[:-1])


def with_masked_layers(model: nn.Module) -> nn.Module:
    """A copy of the model, without gradients, whose channel layers are `Masked`."""
    twin = copy.deepcopy(model)
    twin.zero_grad()
    for path, module in list(twin.named_modules()):
        if isinstance(module, ChannelLinear):
            twin.set_submodule(path, Masked(module))
    return twin


@pytest.mark.parametrize("output_tokens", ["dense", "sparse"])
@pytest.mark.parametrize("name", TASKS)
def test_logits_and_gradients_are_those_of_the_masked_dense_model(
    name: str, output_tokens: str
) -> None:
    method = ContextualSparseLora(
        **LORA, **ALWAYS, ffn_sparsity=0.75, attention_sparsity=0.5, output_tokens=output_tokens
    )
    model = build_adapted(method, name).double()
    torch.manual_seed(3)  # both models draw the same dropout (of BERT)
    output = model(**batch(name))
    output.loss.backward()
    twin = with_masked_layers(model)
    torch.manual_seed(3)
    expected = twin(**batch(name))
    expected.loss.backward()

    masked_layers = [module for module in twin.modules() if isinstance(module, Masked)]
    assert len(channel_layers(model)) == len(masked_layers) > 0
    assert torch.allclose(output.logits, expected.logits, atol=1e-10)
    for key, grad in gradients(twin).items():
        assert torch.allclose(gradients(model)[key], grad, atol=1e-10), key

    tokens_are_labelled = output_tokens == "dense" and TASKS[name] == "language_modelling"
    for layer in masked_layers:
        if tokens_are_labelled:
            assert len(layer.mode.outputs) == 13
        else:
            assert layer.mode.outputs is None
    with torch.no_grad():  # the dense model answers differently: the masks have an effect
        dense_logits = model.eval()(**batch(name)).logits
    assert not torch.allclose(dense_logits, output.logits, atol=1e-4)


@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_a_gathered_feed_forward_is_the_masked_dense_one(name: str) -> None:
    """In single precision. The dense feed-forward is written out here."""
    method = ContextualSparseLora(
        **LORA, **ALWAYS, ffn_sparsity=0.75, attention_sparsity=0.0, output_tokens="sparse"
    )
    model = build_adapted(method, name)
    block = next(layer.chooser for layer in channel_layers(model) if layer.chooser)
    feed_forward = next(m for m in model.modules() if block.up in m.children())
    x = torch.randn(2, 9, 64)
    output = feed_forward(x)

    keep = torch.zeros(block.up.out_features).index_fill(0, block.up.index, 1)
    assert keep.sum() == round(0.25 * block.up.out_features)
    with torch.no_grad():
        up = nn.functional.linear(x, block.up.weight, block.up.bias)
        if block.gate is None:
            hidden = block.activation(up)
        else:
            hidden = block.activation(x @ block.gate.weight.mT) * up
        expected = nn.functional.linear(hidden * keep, block.down.weight, block.down.bias)
    assert torch.allclose(output, expected, atol=2e-5)


def choosers_by_layer(model: nn.Module) -> Iterator[tuple]:
    """The choosers (of attention, of the feed-forward block) of each layer."""
    choosers = [layer.chooser for layer in channel_layers(model) if layer.chooser]
    return zip(choosers[::2], choosers[1::2], strict=True)


def same_entries(a: torch.Tensor, b: torch.Tensor) -> bool:
    return set(a.tolist()) == set(b.tolist())


def exact_values(x: torch.Tensor, layers: list[nn.Module]) -> list[torch.Tensor]:
    return [nn.functional.linear(x, layer.weight, layer.bias) for layer in layers]


@pytest.mark.parametrize("name", TASKS)
def test_a_full_rank_estimate_chooses_as_the_exact_values_do(name: str) -> None:
    method = ContextualSparseLora(
        **LORA, **ALWAYS, estimator_rank=1536, ffn_sparsity=0.6, attention_sparsity=0.5
    )
    model = build_adapted(method, name)
    for attention, block in choosers_by_layer(model):
        x = torch.randn(11, attention.query.in_features)
        attention.choose(x)
        block.choose(x)

        query, key, value = exact_values(x, attention.estimated)
        width = attention.query.out_features // attention.heads
        key_channels = strongest(key_scores(query, key, width), 0.5)
        assert same_entries(attention.key.index, key_channels)
        assert same_entries(attention.value.index, strongest(value.norm(dim=0), 0.5))

        first, *rest = exact_values(x, block.estimated)
        hidden = block.activation(first)
        if rest:
            hidden = hidden * rest[0]
        assert same_entries(block.down.index, strongest(hidden.norm(dim=0), 0.6))


def test_query_channels_are_cut_with_the_key_channel_that_they_meet() -> None:
    """Expected: the order in which transformers repeats key heads under grouped queries."""
    key_heads, groups, width = 4, 2, 8
    channels_by_head = torch.arange(key_heads * width).view(key_heads, width)
    # The key channel that each query channel is multiplied with.
    key_channels = channels_by_head.repeat_interleave(groups, dim=0).flatten()
    index = torch.tensor([0, 9, 15, 30])
    query_channels = torch.isin(key_channels, index).nonzero().flatten()
    assert same_entries(partners(index, groups, width), query_channels)

    query, key = torch.randn(5, 64), torch.randn(5, 32)
    expected = [key[:, j].norm() * query[:, key_channels == j].norm() for j in range(32)]
    assert torch.allclose(key_scores(query, key, width), torch.stack(expected), atol=1e-5)


@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_at_sparsity_0_it_is_lora_to_the_bit(name: str) -> None:
    lora = Lora(**LORA, dropout=0.1)
    sparse = ContextualSparseLora(
        **LORA, **ALWAYS, dropout=0.1, ffn_sparsity=0, attention_sparsity=0
    )
    states = {}
    for method in (lora, sparse):
        model = build_adapted(method, name)
        fit(method, model, name, 4)
        states[method] = model.state_dict()
    assert states[lora].keys() == states[sparse].keys()
    assert all(torch.equal(states[lora][key], value) for key, value in states[sparse].items())


@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_it_is_dense_in_evaluation_and_until_its_start(name: str) -> None:
    lora = Lora(**LORA)
    sparse = ContextualSparseLora(**LORA, start_step=3, dense_first=1, dense_last=0)
    dense_losses = fit(lora, build_adapted(lora, name), name, 5)
    sparse_losses = fit(sparse, build_adapted(sparse, name), name, 5)
    assert dense_losses[:3] == sparse_losses[:3]
    assert dense_losses[3] != sparse_losses[3]

    dense_model = build_adapted(lora, name).eval()
    sparse_model = build_adapted(ContextualSparseLora(**LORA, **ALWAYS), name).eval()
    with torch.no_grad():
        logits = sparse_model(**batch(name)).logits
        assert torch.equal(logits, dense_model(**batch(name)).logits)


def test_feed_forward_sparsity_does_not_change_labelled_tokens() -> None:
    method = ContextualSparseLora(**LORA, **ALWAYS, ffn_sparsity=0.9, attention_sparsity=0.0)
    model = build_adapted(method, "stories260k")
    calls = []
    mlp = next(m for m in model.modules() if type(m).__name__ == "LlamaMLP")
    mlp.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output)))
    model(**batch("stories260k"))
    inputs, sparse = calls[0]
    with torch.no_grad():
        dense = mlp.eval()(inputs)
    is_labelled = batch("stories260k")["labels"] != -100
    assert torch.allclose(sparse[is_labelled], dense[is_labelled], atol=1e-6)
    assert (sparse - dense)[~is_labelled].abs().amax(-1).min() > 1e-5


def layers_by_role(model: nn.Module) -> dict[str, ChannelLinear]:
    """One channel layer for every role (query, up, ...) that a chooser knows."""
    layers = channel_layers(model)
    by_role = {}
    for choosers in choosers_by_layer(model):
        for chooser in choosers:
            by_role |= {role: part for role, part in vars(chooser).items() if part in layers}
    return by_role


@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_flops_fall_by_the_sparse_share_and_rise_by_the_estimates(name: str) -> None:
    shared = {**LORA, "start_step": 0, "dense_first": 1, "dense_last": 0}
    method = ContextualSparseLora(**shared, ffn_sparsity=0.75, attention_sparsity=0.5)
    dense = build_adapted(Lora(**LORA), name, "meta")
    sparse = build_adapted(method, name, "meta")
    tokens, estimator_rank = 3 * 12, 8
    layer_count = len(list(choosers_by_layer(sparse)))

    saved = 0
    for role, linear in layers_by_role(sparse).items():
        sparsity = 0.75 if role in ("gate", "up", "down") else 0.5
        width = linear.weight.shape[1 if role in ("output", "down") else 0]
        kept = round((1 - sparsity) * width)
        dense_flops = 2 * tokens * linear.weight.numel()
        saved += layer_count * dense_flops * (width - kept) // width
    cost = 0
    for linear in channel_layers(sparse):
        if hasattr(linear, "left"):
            cost += 2 * tokens * estimator_rank * (linear.in_features + linear.out_features)

    dense_forward, dense_backward = count_flops(dense)
    sparse_forward, sparse_backward = count_flops(sparse)
    assert dense_forward - sparse_forward == saved - cost
    assert dense_backward - sparse_backward == saved


def count_flops(model: nn.Module) -> tuple[int, int]:
    """FLOPs of (a forward pass, a backward pass)."""
    ids = torch.zeros(3, 12, dtype=torch.long, device="meta")
    mask = torch.zeros(3, 1, 12, 12, device="meta")
    with FlopCounterMode(display=False) as forward:
        logits = model(input_ids=ids, attention_mask=mask).logits
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


def test_the_base_can_be_left_without_gradients() -> None:
    name = "tiny"
    options = {**LORA, **ALWAYS, "ffn_sparsity": 0.5, "attention_sparsity": 0.5}
    options["targets"] = ("query", "value", "output", "up", "down")
    exact = build_adapted(ContextualSparseLora(**options, gradients="exact"), name)
    released = build_adapted(ContextualSparseLora(**options, gradients="none_through_base"), name)
    needs_gradient = []
    for layer in channel_layers(released):
        layer.register_forward_hook(
            lambda _, inputs, output: needs_gradient.append(output.requires_grad)
        )
    exact_output = exact(**batch(name))
    released_output = released(**batch(name))
    assert torch.equal(exact_output.logits, released_output.logits)
    assert not any(needs_gradient)

    exact_output.loss.backward()
    released_output.loss.backward()
    first = next(key for key in gradients(exact) if "layer.0" in key and "lora_B" in key)
    assert not torch.allclose(gradients(exact)[first], gradients(released)[first], rtol=0.05)


@pytest.mark.parametrize("name", TASKS)
def test_merging_leaves_the_modules_of_the_base(name: str) -> None:
    method = ContextualSparseLora(**LORA, **ALWAYS)
    model = build_adapted(method, name).eval()
    with torch.no_grad():
        expected = model(**batch(name)).logits
        merged = method.merge(model)
        assert torch.allclose(merged(**batch(name)).logits, expected, atol=1e-5)
    plain = build_model(name)
    assert [type(m) for m in merged.modules()] == [type(m) for m in plain.modules()]
    assert merged.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("name", ["tiny", "stories260k"])
def test_training_reduces_the_loss_and_two_runs_are_equal_to_the_bit(name: str) -> None:
    method = ContextualSparseLora(**LORA, start_step=3, dense_first=1, dense_last=0)
    first, second = (fit(method, build_adapted(method, name), name, 12) for _ in range(2))
    assert first == second
    assert first[-1] < first[4] < first[0]


def test_unsupported_models_and_options_are_refused() -> None:
    gpt2 = build.from_shapes(MODELS["gpt2"], "language_modelling", 0)
    gpt2_names = build.names(MODELS["gpt2"], "classification")
    assert "not of gpt2" in ContextualSparseLora(4, ("attention",)).unsupported(gpt2, gpt2_names)

    tiny = build.from_shapes(MODELS["tiny"], "classification", 2)
    tiny_names = build.names(MODELS["tiny"], "classification")
    assert "leave no layer" in ContextualSparseLora(**LORA).unsupported(tiny, tiny_names)
    assert ContextualSparseLora(**LORA, dense_last=0).unsupported(tiny, tiny_names) is None

    with pytest.raises(ValueError, match="ffn_sparsity: got 1, allowed: a number in"):
        ContextualSparseLora(**LORA, ffn_sparsity=1)
