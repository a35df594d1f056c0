"""Types of peft on the meta device, where a tensor has a shape and no values.

Memory and FLOPs are predicted there. A few types look at values that they know already: how often
an index occurs, whether a logit is finite, which coefficients lie in the matrix. Their shapes do
not depend on the answer.
"""

from collections.abc import Callable

import torch
from peft import PeftConfig, get_peft_model
from peft.tuners.vblora.layer import VBLoRALayer
from peft.tuners.waveft.layer import WaveFTLayer
from torch import nn
from torch.fx.experimental import _config as shape_rules


def get_peft_model_from_shapes(model: nn.Module, config: PeftConfig) -> nn.Module:
    """Do as `get_peft_model` of peft does, for a model on the meta device.

    The adapter is drawn on the CPU, because its places may depend on a draw; only its shapes stay.

    Args:
        model: the base on the meta device.
        config: the adapter's configuration.

    Returns:
        The adapted model on the meta device.
    """
    with torch.device("cpu"):
        adapted = get_peft_model(model, config)
    adapted.to("meta")
    for layer in adapted.modules():
        if isinstance(layer, VBLoRALayer):
            layer._get_lora_matrices = _as_in_evaluation(layer, layer._get_lora_matrices)
        elif isinstance(layer, WaveFTLayer):
            layer.get_delta_weight = _with_all_coefficients(layer.get_delta_weight)
    return adapted


def _as_in_evaluation(layer: nn.Module, function: Callable) -> Callable:
    """VB-LoRA looks for infinite logits in training only, and does nothing else otherwise."""

    def call(*arguments: object) -> object:
        was_training, layer.training = layer.training, False
        try:
            return function(*arguments)
        finally:
            layer.training = was_training

    return call


def _with_all_coefficients(function: Callable) -> Callable:
    """WaveFT drops coefficients outside of the matrix, where it never puts any."""

    def call(*arguments: object) -> object:
        with shape_rules.patch(meta_nonzero_assume_all_nonzero=True):
            return function(*arguments)

    return call
