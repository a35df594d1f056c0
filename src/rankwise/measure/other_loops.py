"""What loops and releases other than ours hold in a step, as keys of a profile ask for it.

Each key has a module, which is imported by name, so that steps without the key do not depend on it.
"""

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

LITGPT = "rankwise.measure.litgpt_modules"  # `modules: litgpt`
QUANTIZED_FROM = "rankwise.measure.quantized_from"
QUANTIZED_INPUTS = "rankwise.measure.quantized_inputs"  # `keeps_quantized_inputs`
LOSS_INPUT = "rankwise.measure.loss_input"  # any but `fp32`
HOST_BUFFERS = "rankwise.measure.host_buffers"  # `adapted_on_gpu`
SOFTMAX_INPUTS = "rankwise.measure.softmax_inputs"  # `keeps_softmax_inputs`
NUMBER_MASKS = "rankwise.measure.number_masks"  # `masks: numbers`


def hold(model: nn.Module, request: dict) -> None:
    """Let a model hold what it holds under the loop and the releases of a request, in place.

    litgpt's modules come first, because they make new layers in 4 bits. What such a layer computes
    comes before what it keeps.

    Args:
        model: Adapted by a method, in train mode.
        request: With `modules`, `quantized_from`, `keeps_quantized_inputs`, `loss_input` and
            `adapted_on_gpu`, each optional.

    Raises:
        Unsupported: The model or its method does not fit one of them; the message is the reason.
    """
    if request.get("modules") == "litgpt":
        importlib.import_module(LITGPT).use(model)
    if "quantized_from" in request:
        importlib.import_module(QUANTIZED_FROM).use(model, request["quantized_from"])
    if request.get("keeps_quantized_inputs"):
        importlib.import_module(QUANTIZED_INPUTS).keep(model)
    if request.get("loss_input", "fp32") != "fp32":
        importlib.import_module(LOSS_INPUT).use(model, request["loss_input"])
    if request.get("adapted_on_gpu"):
        importlib.import_module(HOST_BUFFERS).leave(model)


@contextmanager
def attention_of(request: dict) -> Iterator[None]:
    """While active, attention has the masks and keeps the tensors of the request's releases.

    Args:
        request: With `keeps_softmax_inputs` if softmax keeps its input, and `masks` if these are
            numbers.
    """
    with ExitStack() as releases:
        if request.get("keeps_softmax_inputs"):
            releases.enter_context(importlib.import_module(SOFTMAX_INPUTS).kept())
        if request.get("masks") == "numbers":
            releases.enter_context(importlib.import_module(NUMBER_MASKS).made_once())
        yield
