"""`targets: all-linear` means what it means in peft, on every architecture."""

import peft
import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from helpers.architectures import ARCHITECTURES, CLASSES, entry, request
from helpers.model_folders import LAYERS
from rankwise.methods.parts.base import adapt
from rankwise.models import build

# Matrices of a layer, by hand from the family's source in transformers.
IN_A_LAYER = {"llama": 7, "qwen2": 7, "mistral": 7, "gemma2": 7, "phi3": 4, "gpt2": 4, "gpt_neox": 4, "modernbert": 4, "roberta": 6}  # fmt: skip
# Beside the layers: ModernBERT's head before the new classifier is pretrained.
OUTSIDE = {"modernbert": {"head.dense"}}
PEFT_TASKS = {"classification": "SEQ_CLS", "language_modelling": "CAUSAL_LM"}


def _adapted(model: nn.Module) -> dict[str, LoraLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _base(family: str) -> nn.Module:
    task = ARCHITECTURES[family]
    torch.manual_seed(0)
    return build.from_shapes(entry(family), task, CLASSES[task], "cpu")


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_the_modules_are_those_of_peft(family: str) -> None:
    ours = request("lora", family)
    names = build.names(ours["model"], ARCHITECTURES[family])
    _, model = adapt(ours["method"], _base(family), names)
    # peft itself knows one module as the head; RoBERTa's has two layers.
    head = {"roberta": ["classifier.dense", "classifier.out_proj"]}.get(family)
    config = peft.LoraConfig(
        r=4,
        target_modules="all-linear",
        exclude_modules=head,
        task_type=PEFT_TASKS[ARCHITECTURES[family]],
    )
    theirs = peft.get_peft_model(_base(family), config)
    assert set(_adapted(model)) == set(_adapted(theirs))
    in_layers = [name for name in _adapted(model) if ".0." in name or ".1." in name]
    assert len(in_layers) == IN_A_LAYER[family] * LAYERS
    outside = {name.removeprefix("base_model.model.") for name in _adapted(model)} - {
        name.removeprefix("base_model.model.") for name in in_layers
    }
    assert outside == OUTSIDE.get(family, set())
    is_conv = {isinstance(layer.get_base_layer(), Conv1D) for layer in _adapted(model).values()}
    assert is_conv == {family == "gpt2"}
