"""The cross-entropy of a causal language model, without the logits of all its tokens.

The logits of n tokens over a vocabulary of V are often the largest tensor of a training step. Here
the head's product and the loss are computed for ROWS tokens at a time, and the logits of these are
dropped. Backward computes them again, and makes of each chunk's softmax p the gradients

    dL/dz = (p - onehot(label)) / predictions,  dL/dh = dL/dz W,  dL/dW = (dL/dz)' h

where z = W h + b are the logits of a token with the hidden state h. The price is one more product
of the head. Value and gradients are those of the plain loss, up to rounding; the gradient of W is
summed in fp32, since a sum of many chunks would lose digits in bf16.

The idea is that of Hsu et al. 2024 (Liger Kernel, arXiv 2410.10989, section 3.2), which computes
the gradients in the forward pass. The loss `liger` is theirs, where liger-kernel is installed.

The models of transformers call their head and then their `loss_function`. In a call with labels,
`use` lets the head hand on the hidden states, and the loss function multiplies them by the head's
weight. A call without labels has logits as before: evaluations and generation are not changed.

This module is imported by name, where a schedule asks for it.
"""

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional
from transformers import PreTrainedModel

from rankwise.core.errors import Unsupported

ROWS = 256  # tokens whose logits exist at once: 131 MB in fp32 over a vocabulary of 128,000
IGNORED = -100  # the label of a token that is not predicted
Loss = Callable[[Tensor, Tensor, Tensor | None, Tensor], Tensor]


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The mean cross-entropy of the labels, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden: Tensor,  # (tokens, width)
        weight: Tensor,  # (vocabulary, width)
        bias: Tensor | None,  # (vocabulary)
        labels: Tensor,  # (tokens)
        rows: int,
    ) -> Tensor:  # ()
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for part in _parts(len(hidden), rows):
            logits = functional.linear(hidden[part], weight, bias).float()
            total += functional.cross_entropy(
                logits, labels[part], ignore_index=IGNORED, reduction="sum"
            )
            del logits  # before the next chunk's are there
        predictions = (labels != IGNORED).sum().clamp_min(1)
        ctx.save_for_backward(hidden, weight, bias, labels, predictions)
        ctx.rows = rows
        return total / predictions

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        hidden, weight, bias, labels, predictions = ctx.saved_tensors
        needs_hidden, trains_weight, trains_bias, _, _ = ctx.needs_input_grad
        of_hidden = torch.empty_like(hidden) if needs_hidden else None
        of_weight = _sum_like(weight) if trains_weight else None
        of_bias = _sum_like(bias) if trains_bias else None
        factor = gradient / predictions
        for part in _parts(len(hidden), ctx.rows):
            of_logits = _gradient_of_logits(hidden[part], weight, bias, labels[part], factor)
            if of_bias is not None:
                of_bias += of_logits.sum(0)
            of_logits = of_logits.to(weight.dtype)
            if of_hidden is not None:
                of_hidden[part] = of_logits @ weight
            if of_weight is None:
                continue
            if of_weight.dtype == weight.dtype:
                of_weight.addmm_(of_logits.mT, hidden[part])
            else:
                of_weight += of_logits.mT @ hidden[part]
        return of_hidden, _cast(of_weight, weight), _cast(of_bias, bias), None, None


def _parts(tokens: int, rows: int) -> Iterator[slice]:
    for start in range(0, tokens, rows):
        yield slice(start, start + rows)


def _sum_like(param: Tensor) -> Tensor:
    """Zeros to sum a gradient in, at least in fp32."""
    return torch.zeros_like(param, dtype=torch.promote_types(param.dtype, torch.float32))


def _cast(total: Tensor | None, param: Tensor | None) -> Tensor | None:
    return None if total is None else total.to(param.dtype)


def _gradient_of_logits(
    hidden: Tensor,  # (rows, width)
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,  # (rows)
    factor: Tensor,  # (): the gradient of the mean, over the number of predictions
) -> Tensor:  # (rows, vocabulary)
    """(p - onehot(label)) times the factor; zeros where nothing is predicted."""
    logits = functional.linear(hidden, weight, bias).float()
    gradient = logits.softmax(-1)
    del logits
    is_predicted = (labels != IGNORED).unsqueeze(1)
    any_label = labels.clamp_min(0).unsqueeze(1)
    gradient.scatter_add_(1, any_label, torch.full_like(any_label, -1, dtype=gradient.dtype))
    gradient *= is_predicted * factor
    return gradient


def chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, rows: int = ROWS
) -> Tensor:  # ()
    """The mean cross-entropy over the tokens with a label; 0 where none has one.

    Args:
        hidden: What the head multiplies, (tokens, width).
        weight: Of the head, (vocabulary, width).
        bias: Of the head, (vocabulary), or None.
        labels: Token ids, (tokens); IGNORED where nothing is predicted.
        rows: How many tokens' logits exist at once.
    """
    # On the meta device, the CPU's flag stands for that of a predicted device.
    device = "cpu" if hidden.is_meta else hidden.device.type
    if torch.is_autocast_enabled(device):
        # As autocast computes a linear layer.
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
        with torch.autocast(device, enabled=False):
            return _ChunkedCrossEntropy.apply(hidden, weight, bias, labels, rows)
    return _ChunkedCrossEntropy.apply(hidden, weight, bias, labels, rows)


def _liger() -> Loss:
    """Liger's loss with the arguments of `chunked_cross_entropy`.

    Raises:
        Unsupported: liger-kernel is not installed.
    """
    try:
        liger = importlib.import_module("liger_kernel.transformers")
    except ModuleNotFoundError as error:
        raise Unsupported(f"loss liger: needs liger-kernel ({error})") from None
    fused = liger.LigerFusedLinearCrossEntropyLoss(ignore_index=IGNORED)
    return lambda hidden, weight, bias, labels: fused(weight, hidden, labels, bias)


class _HeadInLoss:
    """Moves the head's product of one model into its loss.

    Args:
        model: A causal language model of transformers.
        head: Its output embedding.
        loss: Computes the loss from hidden states, the head's weight and bias, and labels.

    Attributes:
        paused: Whether calls with labels make all logits, as before.
    """

    def __init__(self, model: PreTrainedModel, head: nn.Linear, loss: Loss):
        self.head, self.loss, self.paused = head, loss, False
        self._multiply, self._plain = head.forward, model.loss_function
        self._hidden: Tensor | None = None  # what the head got in this call
        self._has_labels = False
        head.forward = self._forward_head
        model.loss_function = self._loss
        model.register_forward_pre_hook(self._begin, with_kwargs=True)
        model.register_forward_hook(self._end)

    def _begin(self, _model: nn.Module, _inputs: tuple, named: dict) -> None:
        self._hidden = None
        self._has_labels = named.get("labels") is not None and not self.paused

    def _forward_head(self, hidden: Tensor) -> Tensor:
        if not self._has_labels:
            return self._multiply(hidden)
        self._hidden = hidden
        return hidden

    def _loss(
        self,
        logits: Tensor,
        labels: Tensor,
        vocab_size: int,
        shift_labels: Tensor | None = None,
        **others: object,
    ) -> Tensor:
        """The model's loss function; `logits` are the hidden states that the head handed on."""
        if not self._has_labels:
            return self._plain(
                logits, labels, vocab_size=vocab_size, shift_labels=shift_labels, **others
            )
        if logits is not self._hidden:
            raise Unsupported(
                "loss: the model changes its logits after the head (soft-capping or a scale), "
                "allowed with it: full"
            )
        targets = _next_tokens(labels) if shift_labels is None else shift_labels
        # The last token of a text predicts nothing; it stays, so that nothing is copied.
        return self.loss(logits.flatten(0, -2), self.head.weight, self.head.bias, targets.flatten())

    def _end(self, _model: nn.Module, _inputs: tuple, output: dict) -> None:
        """Leave no hidden states where a caller would read logits."""
        if self._has_labels:
            output["logits"] = None
        self._hidden, self._has_labels = None, False


def _next_tokens(labels: Tensor) -> Tensor:  # (texts, tokens)
    """The label of the token behind each one; none behind the last."""
    return functional.pad(labels, (0, 1), value=IGNORED)[..., 1:].contiguous()


def use(model: nn.Module, kind: str) -> None:
    """Let a model compute its loss without the logits of all tokens, in place.

    Args:
        model: A causal language model, adapted by a method.
        kind: `chunked` or `liger`.

    Raises:
        Unsupported: The method adapts or replaces the head, the model has a loss of its own, or
            liger-kernel is not installed.
    """
    inner = _language_model(model)
    head = inner.get_output_embeddings()
    if type(head) is not nn.Linear:
        raise Unsupported(
            f"loss {kind}: the method adapts the output embedding, which is now a "
            f"{type(head).__name__}; allowed with it: full"
        )
    if "self.loss_function(" not in inspect.getsource(type(inner).forward):
        raise Unsupported(
            f"loss {kind}: {type(inner).__name__} computes its loss by itself; allowed: full"
        )
    loss = _liger() if kind == "liger" else chunked_cross_entropy
    model.head_in_loss = _HeadInLoss(inner, head, loss)


def _language_model(model: nn.Module) -> PreTrainedModel:
    """The outermost model of transformers in an adapted model."""
    return next(module for module in model.modules() if isinstance(module, PreTrainedModel))


@contextmanager
def all_logits(model: nn.Module) -> Iterator[None]:
    """While active, a model makes all logits in every call, as an evaluation does."""
    held = getattr(model, "head_in_loss", None)
    if held is None:
        yield
        return
    held.paused = True
    try:
        yield
    finally:
        held.paused = False
