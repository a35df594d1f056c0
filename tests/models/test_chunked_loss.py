"""The loss in chunks: value and gradients are those of the plain loss, and no logits exist."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from rankwise.core.errors import Unsupported
from rankwise.models import chunked_loss

VOCABULARY, WIDTH = 50, 16
HEADS = {"num_attention_heads": 4, "intermediate_size": 32}
FAMILIES = {
    "llama": {**HEADS, "num_key_value_heads": 2, "tie_word_embeddings": False},
    "qwen2": {**HEADS, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "gpt2": {"n_head": 4},  # tied
    "gpt_neox": HEADS,
    "opt": {"num_attention_heads": 4, "ffn_dim": 32, "word_embed_proj_dim": WIDTH},
    "phi": HEADS,  # its head has a bias
}


def build(family: str, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **settings,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def texts() -> dict[str, Tensor]:
    """Three texts; the first tokens of each have no label, as a prompt has none."""
    ids = torch.randint(VOCABULARY, (3, 11), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[0, :4], labels[1, :9] = -100, -100
    return {"input_ids": ids, "labels": labels}


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))


@pytest.mark.parametrize("rows", [1, 8, 37, 100])
@pytest.mark.parametrize("has_bias", [False, True])
def test_it_is_torchs_cross_entropy(rows: int, has_bias: bool) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(37, WIDTH), torch.randn(VOCABULARY, WIDTH)
    params = [hidden, weight, *([torch.randn(VOCABULARY)] if has_bias else [])]
    for param in params:
        param.requires_grad_()
    bias = params[2] if has_bias else None
    labels = torch.randint(VOCABULARY, (37,))
    labels[::3] = -100
    plain = functional.cross_entropy(functional.linear(hidden, weight, bias), labels)
    own = chunked_loss.chunked_cross_entropy(hidden, weight, bias, labels, rows)
    torch.testing.assert_close(own, plain, rtol=1e-6, atol=1e-6)
    # Times 3: a loss is one part of a window's mean.
    expected, got = (torch.autograd.grad(3 * loss, params) for loss in (plain, own))
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


def test_nothing_predicted_is_zero_with_zero_gradients() -> None:
    hidden, weight = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    loss = chunked_loss.chunked_cross_entropy(hidden, weight, None, torch.full((4,), -100))
    loss.backward()
    assert loss == 0
    assert not hidden.grad.any()
    assert not weight.grad.any()


def test_bf16_gradients_are_summed_in_fp32() -> None:
    """512 chunks of one token with equal gradients: a sum in bf16 would stop at 256 of them."""
    hidden = torch.ones(512, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    labels = torch.zeros(512, dtype=torch.long)
    chunked_loss.chunked_cross_entropy(hidden, weight, None, labels, rows=1).backward()
    assert weight.grad.flatten().tolist() == [-0.5, 0.5]  # p - onehot, in the mean


@pytest.mark.parametrize("family", FAMILIES)
def test_a_models_loss_and_gradients_stay(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """1e-6 in fp32, for tied and untied heads; calls without labels give logits as before."""
    monkeypatch.setattr(chunked_loss, "ROWS", 8)
    plain = build(family, **FAMILIES[family])
    chunked = copy.deepcopy(plain)
    chunked_loss.use(chunked, "chunked")
    expected, got = plain(**texts()), chunked(**texts())
    torch.testing.assert_close(got.loss, expected.loss, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        gradients(chunked, got.loss), gradients(plain, expected.loss), rtol=1e-6, atol=1e-6
    )
    assert got.logits is None
    ids = texts()["input_ids"]
    assert torch.equal(chunked(input_ids=ids).logits, plain(input_ids=ids).logits)
    with chunked_loss.all_logits(chunked):
        again = chunked(**texts())
    assert torch.equal(again.logits, expected.logits)
    assert torch.equal(again.loss, expected.loss)


def test_autocast_gives_what_it_gives_the_plain_loss() -> None:
    plain = build("llama", **FAMILIES["llama"])
    chunked = copy.deepcopy(plain)
    chunked_loss.use(chunked, "chunked")
    with torch.autocast("cpu", torch.bfloat16):
        expected, got = plain(**texts()).loss, chunked(**texts()).loss
    assert torch.equal(got, expected)
    # To bf16's 8 bits.
    torch.testing.assert_close(
        gradients(chunked, got), gradients(plain, expected), rtol=2e-2, atol=1e-3
    )


class Largest(TorchDispatchMode):
    """Remembers the most numbers that one tensor had."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor):
            self.numbers = max(self.numbers, output.numel())
        return output


def test_the_logits_of_all_tokens_never_exist() -> None:
    """1,200 tokens have 60,000 logits; the largest tensor is that of a chunk's 256 tokens."""
    ids = torch.zeros(20, 60, dtype=torch.long)
    largest = {}
    for kind in ("full", "chunked"):
        model = build("qwen2", **FAMILIES["qwen2"])
        if kind == "chunked":
            chunked_loss.use(model, kind)
        with Largest() as seen:
            model(input_ids=ids, labels=ids).loss.backward()
        largest[kind] = seen.numbers
    assert largest["full"] >= 1200 * VOCABULARY
    # The feed-forward of 1,200 tokens is the largest that is left.
    assert largest["chunked"] < 1200 * VOCABULARY


# Refused ----------------------------------------------------------------------------------------


def test_logits_that_change_behind_the_head_are_refused() -> None:
    """Gemma-2 caps them; without its cap it is like any other."""
    sizes = {**HEADS, "num_key_value_heads": 2, "head_dim": 4}
    capped = build("gemma2", **sizes)
    chunked_loss.use(capped, "chunked")
    with pytest.raises(Unsupported, match="changes its logits after the head"):
        capped(**texts())
    plain = build("gemma2", final_logit_softcapping=None, **sizes)
    expected = plain(**texts()).loss
    chunked_loss.use(plain, "chunked")
    torch.testing.assert_close(plain(**texts()).loss, expected, rtol=1e-6, atol=1e-6)


def test_an_adapted_head_is_refused() -> None:
    model = build("llama", **FAMILIES["llama"])
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "lm_head"]))
    with pytest.raises(Unsupported, match="adapts the output embedding"):
        chunked_loss.use(adapted, "chunked")


def test_liger_is_named_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "liger_kernel", None)
    with pytest.raises(Unsupported, match="needs liger-kernel"):
        chunked_loss.use(build("gpt2", n_head=4), "liger")
