"""Steps of loops and releases that hold more than ours: hand counts, references that live, torch's own allocator."""

import functools
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.profiling import ledger_request
from rankwise.core.errors import Unsupported
from rankwise.core.units import MIB
from rankwise.measure import loss_input, quantized_inputs, softmax_inputs
from rankwise.measure.memory import account
from rankwise.measure.memory.ledger import LIMIT, ledger
from rankwise.measure.memory.tracker import Tracker

LLAMA = {"model": "stories260k", "dataset": "wikitext2", "batch_size": 2}
TOKENS = 32  # of each text


@functools.cache
def predicted(method: str = "lora", **settings: object) -> dict:
    """Metrics of a predicted step on a GPU, without adapters' dropout."""
    sizes = {**LLAMA, "sequence_length_tokens": TOKENS, "device": "cuda", "measured": False}
    override = {} if method == "full" else {method: {"options": {"dropout": 0.0}}}
    request = ledger_request(**{**sizes, "method": method, "override": override, **settings})
    return ledger(request)["metrics"]


# What the loss reads ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["fp32_shifted", "fp32_output", "fp32_in_place", "shifted", "logits"]
)
def test_what_a_loss_reads_changes_no_value(kind: str) -> None:
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
    "softmax and its input": ("lora", {"attention": "eager", "keeps_softmax_inputs": True}),
    "4-bit layers and their inputs": (
        "qlora",
        {"keeps_quantized_inputs": True, "keeps_outputs": True},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("method", "settings"), ON_A_CPU.values(), ids=ON_A_CPU)
def test_what_is_held_is_what_the_allocator_says(method: str, settings: dict) -> None:
    sizes = {**LLAMA, "sequence_length_tokens": TOKENS}
    metrics = ledger(ledger_request(**sizes, method=method, **settings))["metrics"]
    assert abs(metrics["residual_fraction"]) <= LIMIT
