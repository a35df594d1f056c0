"""Steps of loops and releases that hold more than ours: hand counts, references that live, torch's own allocator."""

import copy
import weakref

import peft
import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.other_loops import LLAMA, TOKENS, predicted
from helpers.profiling import ledger_request
from rankwise.core.errors import Unsupported
from rankwise.core.units import MIB
from rankwise.measure import (
    host_buffers,
    loss_input,
    quantized_from,
    quantized_inputs,
    softmax_inputs,
)
from rankwise.measure.memory import account
from rankwise.measure.memory.ledger import LIMIT, ledger
from rankwise.measure.memory.tracker import Tracker

# What the loss reads ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["fp32_shifted", "fp32_output", "fp32_in_place", "shifted", "logits", "fp32_chunks"]
)
def test_what_a_loss_reads_changes_no_value(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_input, "CHUNK", 3)  # of 8 tokens: the last chunk is shorter
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config = LlamaConfig(vocab_size=50, num_attention_heads=2, num_key_value_heads=2, **shape)
    model = LlamaForCausalLM(config)
    ids = torch.randint(50, (3, 8))
    labels = ids.masked_fill(torch.rand(3, 8) < 0.3, -100)
    # The definition: each token is predicted from those before it, and -100 is not.
    logits = model(input_ids=ids).logits
    expected = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    loss_input.use(model, kind)
    loss = model(input_ids=ids, labels=labels).loss
    torch.testing.assert_close(loss, expected)
    weight = model.lm_head.weight
    found, wanted = (torch.autograd.grad(value, weight)[0] for value in (loss, expected))
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(model.eval()(input_ids=ids, labels=labels).loss, expected)


def test_a_shifted_copy_is_counted() -> None:
    """Logits of all tokens but the last of each text, in fp32; its log-softmax is as much shorter."""
    plain, shifted = predicted(), predicted(loss_input="shifted")
    vocabulary = ledger_request(**LLAMA, method="lora")["model"]["architecture"]["vocab_size"]
    texts, row = LLAMA["batch_size"], 4 * vocabulary
    copy, shorter = texts * (TOKENS - 1) * row, texts * row
    labels = 2 * texts * (TOKENS + 1) * 8  # the most that labels, one padded and one shifted, take
    gained = shifted["first_forward_peak_bytes"] - plain["first_forward_peak_bytes"]
    assert abs(gained - (copy - shorter)) <= labels
    assert labels < shorter / 3  # so that neither part could be missing


def test_gradients_over_the_logits_need_no_log_softmax() -> None:
    """One tensor less of all shifted logits in fp32, where the loss is the peak of the pass."""
    shifted, in_place = (predicted(loss_input=kind) for kind in ("fp32_shifted", "fp32_in_place"))
    vocabulary = ledger_request(**LLAMA, method="lora")["model"]["architecture"]["vocab_size"]
    tokens = LLAMA["batch_size"] * (TOKENS - 1)
    rows = tokens * (4 + 4 + 8 + 8 + 1)  # a few numbers for each token
    gained = shifted["first_forward_peak_bytes"] - in_place["first_forward_peak_bytes"]
    assert 0 <= tokens * 4 * vocabulary - gained <= rows


def test_a_model_with_a_loss_of_its_own_is_refused() -> None:
    request = ledger_request("tiny", "lora", measured=False)
    result = ledger({**request, "loss_input": "logits"})
    assert result["status"] == "unsupported"
    assert "computes its loss by itself; allowed: fp32" in result["reason"]
    with pytest.raises(Unsupported):
        loss_input.use(_NoLoss(LlamaConfig()), "logits")


def test_virtual_tokens_have_no_logits_in_chunks() -> None:
    request = ledger_request(**LLAMA, method="prompt_tuning", measured=False)
    result = ledger({**request, "loss_input": "fp32_chunks"})
    assert result["status"] == "unsupported"
    assert "loss_input fp32_chunks: logits of virtual tokens are cut off" in result["reason"]


class _NoLoss(LlamaForCausalLM):
    def __init__(self, config: LlamaConfig):
        super(LlamaForCausalLM, self).__init__(config)

    def forward(self) -> None:
        """Compute nothing."""


# What is held -------------------------------------------------------------------------------------


def quantized_layer() -> nn.Module:
    from rankwise.models.quantized import Nf4Linear

    return Nf4Linear(nn.Linear(64, 64, bias=False), double=False, compute_dtype=torch.float32)


@pytest.mark.parametrize("holds", [False, True])
def test_a_4_bit_layer_holds_its_input_until_its_graph_is_gone(holds: bool) -> None:
    model = nn.Sequential(quantized_layer())
    if holds:
        quantized_inputs.keep(model)
    start = torch.randn(3, 64, requires_grad=True)
    inputs = start * 2  # keeps nothing of its output
    reference = weakref.ref(inputs)
    loss = model(inputs).sum()
    expected = functional.linear(start.detach() * 2, model[0].dense_weight()).sum()
    torch.testing.assert_close(loss.detach(), expected)
    del inputs
    assert (reference() is not None) is holds
    loss.backward()
    torch.testing.assert_close(start.grad, 2 * model[0].dense_weight().sum(0).expand(3, 64))
    assert (reference() is not None) is holds  # backward does not free it
    del loss
    assert reference() is None


@pytest.mark.slow
def test_a_checkpointed_4_bit_layer_holds_its_input_only_where_it_runs_again() -> None:
    kept, without = (
        predicted("qlora", keeps_quantized_inputs=keeps, checkpointing=True)
        for keeps in (True, False)
    )
    assert kept["first_forward_peak_bytes"] == without["first_forward_peak_bytes"]
    assert kept["first_backward_peak_bytes"] >= without["first_backward_peak_bytes"]


def test_inputs_of_4_bit_layers_are_counted() -> None:
    """Of each layer: what both norms give out, and what the last matrix reads; the rest is kept anyway."""
    kept, without = (predicted("qlora", **held) for held in ({"keeps_quantized_inputs": True}, {}))
    shape = ledger_request(**LLAMA, method="qlora")["model"]["architecture"]
    numbers = 2 * TOKENS * (shape["hidden_size"] + shape["intermediate_size"])
    least = shape["num_hidden_layers"] * numbers * 2  # bf16
    gained = kept["first_forward_peak_bytes"] - without["first_forward_peak_bytes"]
    most = shape["num_hidden_layers"] * 2 * TOKENS * 2 * (
        3 * shape["hidden_size"] + shape["intermediate_size"]
    )  # fmt: skip
    assert least <= gained <= most


def test_a_4_bit_layer_that_was_quantized_from_fp16_computes_the_same() -> None:
    model = nn.Sequential(quantized_layer())
    x = torch.randn(3, 64)
    start, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = functional.linear(start, model[0].dense_weight())
    expected.square().sum().backward()
    quantized_from.use(model, "fp16")
    out = model(other)
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-3)  # fp16 has 11 bits
    out.square().sum().backward()
    torch.testing.assert_close(other.grad, start.grad, rtol=5e-3, atol=5e-3)


def most_held(layer: nn.Module, x: torch.Tensor) -> int:
    """The most bytes that a call holds beside what was there before."""
    log = Tracker()
    for value in layer.parameters():
        log.see(value)
    first = len(log.events)
    with log:
        layer(x)
    held = highest = 0
    for event in log.events[first:]:
        held += log.sizes[event - 1] if event > 0 else -log.sizes[-event - 1]
        highest = max(highest, held)
    return highest


def test_a_matrix_of_two_steps_is_there_twice() -> None:
    """In fp16 and in fp32 while it is cast: 2 and 4 bytes a weight; else in fp32 alone, beside the output."""
    with torch.device("meta"):
        layers = {dtype: nn.Sequential(quantized_layer()) for dtype in ("fp32", "fp16")}
        x = torch.empty(1, 64)
        for dtype, layer in layers.items():
            quantized_from.use(layer, dtype)
    once, twice = (most_held(layer, x) for layer in layers.values())
    assert once == 64 * 64 * 4 + 64 * 4
    assert twice == 64 * 64 * (2 + 4)


@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_softmax_keeps_its_input_until_backward(dtype: torch.dtype | None) -> None:
    start = torch.randn(4, 5, requires_grad=True)
    factor = torch.randn(4, 5)
    expected = torch.autograd.grad((torch.softmax(start * 2, -1) * factor).sum(), start)[0]
    inputs = start * 2
    reference = weakref.ref(inputs)
    with softmax_inputs.kept():
        loss = (functional.softmax(inputs, dim=-1, dtype=dtype) * factor).sum()
    del inputs
    assert reference() is not None
    loss.backward()
    assert reference() is None
    torch.testing.assert_close(start.grad, expected)
    inputs = start * 2
    reference = weakref.ref(inputs)
    loss = functional.softmax(inputs, dim=-1).sum()
    del inputs
    assert reference() is None  # today's keeps its output alone


@pytest.mark.slow
def test_scores_that_softmax_keeps_are_counted() -> None:
    """Of each layer (texts, heads, tokens, tokens) in fp32."""
    kept, without = (
        predicted(attention="eager", keeps_softmax_inputs=keeps) for keeps in (True, False)
    )
    shape = ledger_request(**LLAMA, method="lora")["model"]["architecture"]
    scores = 2 * shape["num_attention_heads"] * TOKENS**2 * 4
    gained = kept["first_forward_peak_bytes"] - without["first_forward_peak_bytes"]
    assert gained == pytest.approx(shape["num_hidden_layers"] * scores, rel=0.25)
    assert gained >= (shape["num_hidden_layers"] - 1) * scores


def test_one_mask_of_numbers_in_place_of_one_a_layer() -> None:
    """On CUDA each layer keeps (texts, 1, tokens, tokens) in fp32, beside the boolean mask."""
    sizes = {"model": "tiny", "dataset": "sst2", "padded": True}
    each, once = (predicted("full", masks=masks, **sizes) for masks in ("boolean", "numbers"))
    layers = ledger_request("tiny", "full")["model"]["architecture"]["n_layers"]
    places = 2 * TOKENS**2
    fewer = each["first_forward_peak_bytes"] - once["first_forward_peak_bytes"]
    assert fewer == (layers - 1) * 4 * places + places


def test_outputs_that_go_after_the_update_are_not_in_the_next_forward_pass() -> None:
    plain = predicted()
    kept, dropped = (predicted(keeps_outputs=keeps) for keeps in (True, "until_update"))
    assert dropped["first_update_peak_bytes"] == kept["first_update_peak_bytes"]
    assert dropped["first_update_peak_bytes"] > plain["first_update_peak_bytes"]
    assert dropped["forward_peak_bytes"] == plain["forward_peak_bytes"] < kept["forward_peak_bytes"]


@pytest.mark.slow
def test_gradients_that_become_zeros_stay_through_the_next_forward_pass() -> None:
    freed, zeroed = (predicted("full", zeroes_gradients=zeroes) for zeroes in (False, True))
    gained = zeroed["forward_peak_bytes"] - freed["forward_peak_bytes"]
    assert gained == pytest.approx(freed["weights_bytes"], rel=0.01)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_gradients_that_go_before_the_next_forward_pass_are_alive_in_between(
    accumulation_steps: int,
) -> None:
    settings = {"accumulation_steps": accumulation_steps}
    after, before = (
        predicted("full", zero_grad=when, **settings) for when in ("after_update", "before_forward")
    )
    assert (
        before["evaluation_peak_bytes"] - after["evaluation_peak_bytes"] == after["weights_bytes"]
    )
    for phase in ("first_update", "forward", "backward", "update"):
        assert before[f"{phase}_peak_bytes"] == after[f"{phase}_peak_bytes"], phase


PLACED = {  # types whose adapters have buffers of several kinds, or none
    "boft": peft.BOFTConfig(boft_block_size=4),
    "fourierft": peft.FourierFTConfig(n_frequency=8),
    "lora": peft.LoraConfig(),
    "oft": peft.OFTConfig(r=0, oft_block_size=4),
    "vera": peft.VeraConfig(r=4),
}


@pytest.mark.parametrize("config", PLACED.values(), ids=PLACED)
def test_a_model_that_is_adapted_on_its_device_has_the_buffers_there_that_peft_moves(
    config: peft.PeftConfig,
) -> None:
    config = copy.deepcopy(config)
    config.target_modules = ["q_proj"]
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 50}
    llama = LlamaConfig(num_attention_heads=2, num_key_value_heads=2, **shape)
    base = LlamaForCausalLM(llama)
    on_device = copy.deepcopy(base).to("meta")
    moved_by_peft = peft.get_peft_model(on_device, copy.deepcopy(config))
    moved_whole = peft.get_peft_model(base, config).to("meta")
    host_buffers.leave(moved_whole)
    found, wanted = (
        {name: buffer.device.type for name, buffer in model.named_buffers()}
        for model in (moved_whole, moved_by_peft)
    )
    assert found == wanted
    assert any(device == "cpu" for device in found.values()) is (config.peft_type == "BOFT")


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["fp32", "bf16"])
def test_permutations_that_stay_on_the_host_are_copied_at_each_call(weights: str) -> None:
    """One of the width squared in fp32 for each matrix; the layer's own copy lives till backward."""
    sizes = {**LLAMA, "method": "boft", "rank": 4, "sequence_length_tokens": TOKENS}
    changed = {"override": {"boft": {"weights": weights}}, "device": "cuda", "measured": False}
    request = ledger_request(**sizes, **changed)
    moved, left = (ledger({**request, **on}) for on in ({}, {"adapted_on_gpu": True}))
    held = {
        kind: moved["metrics"][kind] - left["metrics"][kind]
        for kind in ("buffers_bytes", "activations_bytes")
    }
    shape = request["model"]["architecture"]
    permutations = 2 * shape["num_hidden_layers"] * shape["hidden_size"] ** 2 * 4
    placeholders = 2 * shape["num_hidden_layers"] * 4
    assert held["buffers_bytes"] == permutations - placeholders
    # In bf16 there is a copy anyway.
    assert held["activations_bytes"] == (-permutations if weights == "fp32" else 0)


def test_an_emptied_cache_gives_its_segments_back() -> None:
    """30 MiB in the first step and 40 in the second: with a cache, the first 30 stay reserved."""
    log = Tracker()
    log.phases = [("first_forward", 0), ("forward", 2)]
    log.sizes, log.events, log.end = [30 * MIB, 40 * MIB], [1, -1, 2, -2], 4
    sizes = {"workspace_bytes": 2 * MIB}
    assert account.simulate(log, **sizes).peak_reserved == (20 + 30 + 40) * MIB
    emptied = account.simulate(log, empties_cache=True, **sizes)
    assert emptied.peak_reserved == (20 + 40) * MIB


# Against torch's allocator on a CPU ---------------------------------------------------------------

ON_A_CPU = {
    "a shifted copy of logits": ("lora", {"loss_input": "fp32_shifted", "precision": "bf16"}),
    "logits that are returned in fp32": (
        "lora_bf16",
        {"loss_input": "fp32_output", "keeps_outputs": "until_update"},
    ),
    "gradients that stay": ("full", {"zeroes_gradients": True}),
    "gradients that stay until the next step": ("full", {"zero_grad": "before_forward"}),
    "one mask of numbers": ("lora", {"padded": True, "masks": "numbers"}),
    "softmax and its input": ("lora", {"attention": "eager", "keeps_softmax_inputs": True}),
    "4-bit layers and their inputs": (
        "qlora",
        {"keeps_quantized_inputs": True, "keeps_outputs": True},
    ),
    "dense matrices in two steps": ("qlora", {"quantized_from": "fp16"}),
    "logits in chunks": (
        "lora",
        {"loss_input": "fp32_chunks", "keeps_outputs": True, "sequence_length_tokens": 200},
    ),
    "litgpt's modules": ("lora", {"modules": "litgpt"}),
    "litgpt's modules in 4 bits": (
        "qlora",
        {"modules": "litgpt", "quantized_from": "fp16", "keeps_quantized_inputs": True},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("method", "settings"), ON_A_CPU.values(), ids=ON_A_CPU)
def test_what_is_held_is_what_the_allocator_says(method: str, settings: dict) -> None:
    sizes = {**LLAMA, "sequence_length_tokens": TOKENS, **settings}
    metrics = ledger(ledger_request(**sizes, method=method))["metrics"]
    assert abs(metrics["residual_fraction"]) <= LIMIT
