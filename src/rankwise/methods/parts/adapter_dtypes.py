"""The dtype of the parameters that a method adds, and of what its layers hand on.

peft makes adapters in fp32 on a base in bf16 (mixed precision, as QLoRA's authors train), and casts
inputs and outputs of most of its layers. Here the adapters may be in bf16 as well (as litgpt's
bf16-true), and layers that forget the cast get it.
"""

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from rankwise.core.errors import Unsupported

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def cast_added(model: nn.Module, of_base: set[int], new_head: list[str], wanted: str) -> None:
    """Give the parameters that a method has added a dtype, in place; frozen ones too (LoRA-FA's A).

    A head that is new for the task stays in fp32, as under every storage of the base.

    Args:
        model: The adapted model.
        of_base: Ids of the parameters that the base had.
        new_head: Last names of the modules of a head that is new for the task.
        wanted: A key of DTYPES.

    Raises:
        Unsupported: The method has added none, or its layers cannot compute so.
    """
    added = []
    for name, param in model.named_parameters():
        is_of_head = not set(name.split(".")).isdisjoint(new_head)
        if id(param) not in of_base and not is_of_head and param.is_floating_point():
            added.append(param)
    if not any(param.requires_grad for param in added):
        raise Unsupported(f"adapter_dtype {wanted}: the method adds no parameters")
    for param in added:
        param.data = param.data.to(DTYPES[wanted])
    _try_layers(model, wanted)


def _try_layers(model: nn.Module, wanted: str) -> None:
    """Multiply one vector by one layer of each kind: torch tells where dtypes do not go together.

    Raises:
        Unsupported: They do not.
    """
    layers = {type(layer): layer for layer in tuner_layers(model)}
    for kind, layer in layers.items():
        weight = layer.get_base_layer().weight
        dtype = weight.dtype if weight.is_floating_point() else DTYPES["bf16"]
        vector = torch.zeros(1, layer.in_features, dtype=dtype, device=weight.device)
        trains = layer.training
        layer.eval()  # dropout would draw random numbers
        try:
            with torch.no_grad():
                layer(vector)
        except RuntimeError as error:
            layer_name = f"{kind.__module__.removeprefix('peft.tuners.')}.{kind.__name__}"
            reason = str(error).strip().splitlines()[0]
            raise Unsupported(
                f"adapter_dtype {wanted}: peft's {layer_name} cannot compute so: {reason}"
            ) from None
        finally:
            layer.train(trains)


def tuner_layers(model: nn.Module) -> list[BaseTunerLayer]:
    """Peft's layers around a linear one."""
    return [
        layer
        for layer in model.modules()
        if isinstance(layer, BaseTunerLayer)
        and isinstance(getattr(layer, "in_features", None), int)
    ]


def keep_dtypes(model: nn.Module) -> None:
    """Let peft's layers hand on the dtype that they got, where they would hand on their own."""
    for layer in tuner_layers(model):
        layer.register_forward_hook(_cast_output)


def _cast_output(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.to(inputs[0].dtype)
