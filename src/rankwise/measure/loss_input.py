"""What the plain cross-entropy of a causal language model reads, for predictions of other loops.

transformers today casts logits to fp32 and shifts the labels, not the logits. Other loops differ in
what they hold of a tensor that is often the largest of a step, (texts, tokens, vocabulary):

- `fp32_shifted`: logits in fp32, and a contiguous copy of them without the last token, as in
  `ForCausalLMLoss` of transformers 4.48.
- `fp32_output`: the same, where the model itself casts its logits and so returns them in fp32, as
  in `LlamaForCausalLM` of transformers before 4.46.
- `fp32_in_place`, `fp32_output_in_place`: as `fp32_shifted` and `fp32_output`, but by a fused
  kernel that keeps no log-softmax: backward writes the gradient over the shifted copy, as in
  fms-acceleration (fms_acceleration_foak/kernels/unsloth/cross_entropy_loss.py).
- `shifted`: such a copy in the dtype of the logits, as in transformers' older models (GPTBigCode in
  4.48) and in many loops of users.
- `logits`: the logits as they are.
- `fp32_chunks`: logits of CHUNK tokens at a time, each cast to fp32 when all are there. litgpt's
  LoRA does so (`lm_head_chunk_size` and `chunked_cross_entropy`; the cast is `convert_output` of
  lightning_fabric's precision plugins). Kept is as much as with `fp32`, but the gradient of a chunk
  replaces what was kept of it. An evaluation has all logits at once, in fp32.

The value of the loss is the same up to rounding. This module is imported by name, where a profile
asks for it.
"""

import functools
import inspect
from collections.abc import Callable

import torch
from peft import PeftType
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from rankwise.core.errors import Unsupported

IGNORED = -100  # the label of a token that is not predicted
CHUNK = 128  # tokens of each text: `lm_head_chunk_size` in litgpt/finetune/lora.py


def use(model: nn.Module, kind: str) -> None:
    """Let a causal language model compute its loss from another input, in place.

    Args:
        model: A causal language model, adapted by a method.
        kind: One of the names above.

    Raises:
        Unsupported: The model computes its loss by itself, or its logits must be one tensor.
    """
    inner = next(module for module in model.modules() if isinstance(module, PreTrainedModel))
    if "self.loss_function(" not in inspect.getsource(type(inner).forward):
        raise Unsupported(
            f"loss_input {kind}: {type(inner).__name__} computes its loss by itself; allowed: fp32"
        )
    config = getattr(model, "active_peft_config", None)
    is_prompted = config is not None and config.is_prompt_learning
    # Prefixes are no tokens, and so have no logits.
    if kind == "fp32_chunks" and is_prompted and config.peft_type != PeftType.PREFIX_TUNING:
        raise Unsupported(
            "loss_input fp32_chunks: logits of virtual tokens are cut off, which chunks do not "
            "allow; allowed: another loss_input, or a method without virtual tokens"
        )
    if kind.startswith("fp32_output"):
        inner.get_output_embeddings().register_forward_hook(lambda _, __, logits: logits.float())
    inner.loss_function = {
        "fp32_shifted": _fp32_shifted,
        "fp32_output": _fp32_shifted,
        "fp32_in_place": _fp32_in_place,
        "fp32_output_in_place": _fp32_in_place,
        "shifted": _shifted,
        "logits": _from_logits,
        "fp32_chunks": _from_chunks,
    }[kind]
    if kind == "fp32_chunks":
        head = inner.get_output_embeddings()
        head.forward = functools.partial(_head_in_chunks, head, head.forward)


# The arguments are those with which transformers' models call their loss function.


def _fp32_shifted(logits: Tensor, labels: Tensor, vocab_size: int, **_: object) -> Tensor:
    widened = logits.float()
    shifted = widened[..., :-1, :].contiguous()
    return _cross_entropy(shifted, labels[..., 1:], vocab_size)


def _fp32_in_place(logits: Tensor, labels: Tensor, vocab_size: int, **_: object) -> Tensor:
    shifted = logits.float()[..., :-1, :].contiguous()
    targets = labels[..., 1:].reshape(-1)
    losses = _InPlace.apply(shifted.view(-1, vocab_size), targets)
    return losses.sum() / (targets != IGNORED).sum()


class _InPlace(torch.autograd.Function):
    """Cross-entropy of each row, whose backward writes the gradient into the logits.

    With z the logits of a row and y its target, the loss is log sum exp(z) - z_y, and its gradient
    softmax(z) less 1 at y. Of a fused kernel only what it returns is allocated: so are the numbers
    here that each row has one of.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, targets: Tensor) -> Tensor:
        is_ignored = targets == IGNORED
        column = targets.masked_fill(is_ignored, 0)[:, None]
        logsumexp = torch.logsumexp(logits, dim=1)
        ctx.save_for_backward(logits, logsumexp, column, is_ignored)
        return (logsumexp - logits.gather(1, column)[:, 0]).masked_fill(is_ignored, 0)

    @staticmethod
    def backward(ctx, gradients: Tensor) -> tuple[Tensor, None]:
        logits, logsumexp, column, is_ignored = ctx.saved_tensors
        gradients = gradients.masked_fill(is_ignored, 0)[:, None]
        logits.sub_(logsumexp[:, None]).exp_().mul_(gradients)
        return logits.scatter_add_(1, column, -gradients), None


def _shifted(logits: Tensor, labels: Tensor, vocab_size: int, **_: object) -> Tensor:
    return _cross_entropy(logits[..., :-1, :].contiguous(), labels[..., 1:], vocab_size)


def _from_logits(logits: Tensor, labels: Tensor, vocab_size: int, **_: object) -> Tensor:
    return _cross_entropy(logits, _next(labels), vocab_size)


def _from_chunks(
    logits: list[Tensor] | Tensor, labels: Tensor, vocab_size: int, **_: object
) -> Tensor:
    if isinstance(logits, Tensor):  # of an evaluation
        return _from_logits(logits, labels, vocab_size)
    targets = _next(labels)
    sums = [
        _cross_entropy(part, target, vocab_size, "sum")
        for part, target in zip(logits, targets.split(CHUNK, dim=1), strict=True)
    ]
    return torch.stack(sums).sum() / (targets != IGNORED).sum()


def _head_in_chunks(
    head: nn.Module, plain: Callable[[Tensor], Tensor], hidden: Tensor
) -> list[Tensor] | Tensor:
    """Logits in fp32, CHUNK tokens each; all in one outside of training."""
    if not head.training:
        return plain(hidden).float()
    chunks = [plain(part) for part in hidden.split(CHUNK, dim=1)]
    return [chunk.float() for chunk in chunks]


def _next(labels: Tensor) -> Tensor:
    """The next token of each; the last one of a text predicts nothing, but stays."""
    return functional.pad(labels, (0, 1), value=IGNORED)[..., 1:]


def _cross_entropy(
    logits: Tensor, targets: Tensor, vocab_size: int, reduction: str = "mean"
) -> Tensor:
    """The mean or the sum over predicted tokens, without the casts of autocast."""
    device = "cpu" if logits.is_meta else logits.device.type
    with torch.autocast(device, enabled=False):
        return functional.cross_entropy(
            logits.view(-1, vocab_size),
            targets.reshape(-1),
            ignore_index=IGNORED,
            reduction=reduction,
        )
