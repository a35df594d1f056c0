"""Buffers of adapters that stay on the host, where peft adapts a model that is on the GPU already.

A model loaded with `from_pretrained(device_map=...)` is on the GPU when `get_peft_model` adapts it.
peft creates an adapter on the host and then moves what it keeps by the name of the adapter: its
parameters, modules and dictionaries of buffers (peft 0.19 to 0.21, tuners/tuners_utils.py,
`_move_adapter_to_device_of_base_layer`). A buffer of the adapted layer itself is not among these;
BOFT's permutations (`boft_P`) are such buffers. The layer copies them to its input's device at each
call. A loop that moves the adapted model as a whole, such as ours, has them on the GPU.

This module is imported by name, where a profile asks for it.
"""

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn


def leave(model: nn.Module) -> None:
    """Put the direct buffers of a model's adapted layers on the host, in place.

    Args:
        model: An adapted model on a GPU, or on the meta device in its place.
    """
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            for name, buffer in layer.named_buffers(recurse=False):
                setattr(layer, name, _on_host(buffer))


def _on_host(buffer: Tensor) -> Tensor:
    """The buffer on the host; in place of a meta tensor, one number that is read at all places."""
    if buffer.is_meta:
        return torch.zeros((), dtype=buffer.dtype, device="cpu").expand(buffer.shape)
    return buffer.cpu()
