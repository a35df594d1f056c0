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
- `logits`: the logits as they are, as in litgpt's loop.

The value of the loss is the same up to rounding. This module is imported by name, where a profile
asks for it.
"""

import inspect

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from rankwise.core.errors import Unsupported

IGNORED = -100  # the label of a token that is not predicted


def use(model: nn.Module, kind: str) -> None:
    """Let a causal language model compute its loss from another input, in place.

    Args:
        model: A causal language model, adapted by a method.
        kind: One of the names above.

    Raises:
        Unsupported: The model computes its loss by itself.
    """
    inner = next(module for module in model.modules() if isinstance(module, PreTrainedModel))
    if "self.loss_function(" not in inspect.getsource(type(inner).forward):
        raise Unsupported(
            f"loss_input {kind}: {type(inner).__name__} computes its loss by itself; allowed: fp32"
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
    }[kind]


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
    # The last token of a text predicts nothing; it stays, so that nothing is copied.
    targets = functional.pad(labels, (0, 1), value=IGNORED)[..., 1:]
    return _cross_entropy(logits, targets, vocab_size)


def _cross_entropy(logits: Tensor, targets: Tensor, vocab_size: int) -> Tensor:
    """The mean over predicted tokens, without the casts of autocast."""
    device = "cpu" if logits.is_meta else logits.device.type
    with torch.autocast(device, enabled=False):
        return functional.cross_entropy(
            logits.view(-1, vocab_size), targets.reshape(-1), ignore_index=IGNORED
        )
