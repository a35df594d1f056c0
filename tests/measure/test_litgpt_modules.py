"""A Llama as litgpt builds it: values of transformers' modules, other tensors kept, refusals."""

import weakref

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.other_loops import LLAMA, predicted
from helpers.profiling import ledger_request
from rankwise.measure import litgpt_modules
from rankwise.measure.memory.ledger import ledger


def small_llama(groups: int, targets: list[str] | None = None) -> nn.Module:
    """A Llama with 4 heads and `groups` of keys and values, adapted by LoRA if there are targets."""
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=50, num_attention_heads=4, num_key_value_heads=groups, **shape)
    model = LlamaForCausalLM(config)
    if targets is None:
        return model
    lora = LoraConfig(r=2, lora_alpha=6, target_modules=targets, init_lora_weights=False)
    return get_peft_model(model, lora)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    "targets",
    [None, ["q_proj", "v_proj"], ["k_proj", "o_proj"], ["q_proj", "k_proj", "v_proj", "up_proj"]],
)
def test_litgpt_modules_compute_what_those_of_transformers_do(
    groups: int, targets: list[str] | None
) -> None:
    plain, fused = small_llama(groups, targets), small_llama(groups, targets)
    litgpt_modules.use(fused)
    ids = torch.randint(50, (2, 7))
    expected, found = (model(input_ids=ids, labels=ids) for model in (plain, fused))
    torch.testing.assert_close(found.logits, expected.logits)
    for output in (expected, found):
        output.loss.backward()
    sizes = [
        sorted(p.numel() for p in model.parameters() if p.requires_grad) for model in (plain, fused)
    ]
    assert sum(sizes[0]) == sum(sizes[1])
    layer, adapted = plain.get_submodule(LAYER[targets is None]).self_attn, targets or []
    mine = fused.get_submodule(LAYER[targets is None]).self_attn.attn
    parts = [name for name in ("q_proj", "k_proj", "v_proj") if name in adapted]
    if targets is None:
        gradients = [
            layer.get_submodule(name).weight.grad for name in ("q_proj", "k_proj", "v_proj")
        ]
        torch.testing.assert_close(mine.base.weight.grad, torch.cat(gradients))
    for kind, gradient in (("lora_A", "A"), ("lora_B", "B")) if parts else ():
        wanted = [layer.get_submodule(f"{name}.{kind}.default").weight.grad for name in parts]
        torch.testing.assert_close(getattr(mine, gradient).grad, torch.cat(wanted))


LAYER = {True: "model.layers.0", False: "base_model.model.model.layers.0"}


@pytest.mark.parametrize(("groups", "holds"), [(4, True), (2, False)])
def test_values_hold_the_output_they_are_part_of(groups: int, holds: bool) -> None:
    """Of heads with values of their own; shared ones are copied for each head."""
    model = small_llama(groups, ["q_proj", "v_proj"])
    litgpt_modules.use(model)
    references = []
    attention = model.get_submodule(LAYER[False]).self_attn.attn
    attention.register_forward_hook(
        lambda _module, _inputs, output: references.append(weakref.ref(output.untyped_storage()))
    )
    loss = model(input_ids=torch.randint(50, (2, 7)), labels=torch.randint(50, (2, 7))).loss
    assert (references[0]() is not None) is holds
    loss.backward()
    assert references[0]() is None


def test_the_head_of_a_4_bit_litgpt_model_is_in_4_bits() -> None:
    plain, fused = (predicted("qlora", modules=kind) for kind in ("transformers", "litgpt"))
    shape = ledger_request(**LLAMA, method="qlora")["model"]["architecture"]
    weights = shape["vocab_size"] * shape["hidden_size"]
    assert shape["tie_word_embeddings"]  # so the embedding, which is no linear layer, stays
    assert fused["weights_bytes"] - plain["weights_bytes"] == weights // 2


def test_litgpt_modules_of_another_family_are_refused() -> None:
    request = ledger_request("tiny", "lora", measured=False)
    result = ledger({**request, "modules": "litgpt"})
    assert result["status"] == "unsupported"
    assert "modules litgpt: got DistilBertForSequenceClassification" in result["reason"]
    result = ledger(ledger_request(**LLAMA, method="dora", measured=False, modules="litgpt"))
    assert "got attention that DoRA adapts; allowed: LoRA" in result["reason"]
    others = {
        "adalora": "peft.tuners.adalora",
        "prefix_tuning": "prefix tuning",
        "weight_reduction": "rankwise.methods.",
    }
    for method, name in others.items():
        result = ledger(ledger_request(**LLAMA, method=method, measured=False, modules="litgpt"))
        assert name in result["reason"]
        assert "allowed: LoRA, or no adapter" in result["reason"]
