"""One training step built from a profile's request, in parts that a profile can observe.

The parts are the forward pass, the backward pass and the update. The model has random weights, or
none at all on the meta device. Every sequence fills its length, so there is no attention mask,
unless the request says that batches are padded (`padded`).
"""

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import convert_to_fp32
from torch import Tensor, nn
from transformers.utils import ModelOutput

from rankwise.measure import other_loops, step_batch
from rankwise.methods.parts.base import Method, adapt, build_optimizer
from rankwise.methods.parts.optimizers import step_without_values
from rankwise.models import build, storage
from rankwise.optim.parts.waiting import trains

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}  # precision -> dtype of products
# Imported by name, so that steps with the plain loss do not depend on it.
CHUNKED_LOSS = "rankwise.models.chunked_loss"
FLASH_SHAPES = "rankwise.measure.memory.flash_attention"  # likewise, for `attention: flash`
LOSS_SCALING = "rankwise.measure.loss_scaling"  # likewise, for `precision: fp16`
GENERATION = "rankwise.measure.generation"  # likewise, `generated_tokens`
UNTIL_UPDATE = "until_update"
BEFORE_FORWARD = "before_forward"


@dataclass
class Step:
    """A model with its optimizer and one batch.

    Attributes:
        method: The fine-tuning method that adapted the model.
        model: The adapted model, in train mode.
        optimizer: The optimizer; None where nothing trains.
        batch: Token ids (batch, length) and labels.
        evaluation_batch: Makes what an evaluation reads; `batch` if None.
        generated_tokens: How many an evaluation generates after each text; 0 if it does not.
        accumulation_steps: Micro-batches in an update.
        loss: How the loss is computed: `full`, `chunked` or `liger`.
        precision: `fp32`, or `bf16` or `fp16` for autocast.
        keeps_outputs: Whether what the model returned stays alive until it returns again (true), as
            in a training loop that holds it in a variable, or until the update is made
            (`until_update`), as in one that then lets go of it.
        zeroes_gradients: Whether gradients are filled with zeros after an update, and so stay.
        zero_grad: When the loop calls it: `after_update`, or `before_forward`, so that gradients
            are alive between updates.
        scaler: Scales the loss in fp16 (loss_scaling.ProfileScaler); None otherwise.
        taken: How many updates have been made.
        output: What the model returned last, if outputs are kept.
        _holds_gradients: Whether the gradients of the last update are still there.
    """

    method: Method
    model: nn.Module
    optimizer: torch.optim.Optimizer | None
    batch: dict[str, Tensor]
    evaluation_batch: Callable[[], dict[str, Tensor]] | None = None
    generated_tokens: int = 0
    accumulation_steps: int = 1
    loss: str = "full"
    precision: str = "fp32"
    keeps_outputs: bool | str = False
    zeroes_gradients: bool = False
    zero_grad: str = "after_update"
    scaler: Any = None
    taken: int = 0
    output: ModelOutput | None = None
    _holds_gradients: bool = False

    def forward(self) -> Tensor:
        """Return the loss of the batch."""
        if self._holds_gradients:
            self._drop_gradients()
        output = self._called(self.batch)
        if self.keeps_outputs:
            self.output = output
        return output.loss

    def _called(self, batch: dict[str, Tensor]) -> ModelOutput:
        """The model's output for a batch; under autocast as accelerate calls it in training.

        accelerate casts everything that a model returns to fp32, its logits too.
        """
        if self.precision == "fp32":
            return self.model(**batch)
        with self._autocast(batch):
            output = self.model(**batch)
        return convert_to_fp32(output)

    def backward(self, loss: Tensor) -> None:
        """Run a backward pass; in fp16 from the scaled loss."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def _autocast(self, batch: dict[str, Tensor]) -> AbstractContextManager[None]:
        """Autocast to the step's precision, on the batch's device; nothing in fp32."""
        if self.precision == "fp32":
            return nullcontext()
        device = batch["input_ids"].device.type
        # A flag of the CPU stands for the autocast of the device that is predicted (autocast.py).
        return torch.autocast("cpu" if device == "meta" else device, AUTOCAST[self.precision])

    def evaluate(self) -> None:
        """Run a forward pass as an evaluation does, with the logits of all tokens; or generate."""
        self.model.eval()
        batch = self.evaluation_batch() if self.evaluation_batch else self.batch
        if self.generated_tokens:
            with self._autocast(batch):
                generation = importlib.import_module(GENERATION)
                generation.generate(self.model, batch, self.generated_tokens)
            return
        all_logits = nullcontext()
        if self.loss != "full":
            all_logits = importlib.import_module(CHUNKED_LOSS).all_logits(self.model)
        with torch.no_grad(), all_logits:
            self._called(batch)

    def update(self) -> None:
        """Step the optimizer, drop the gradients and call the method's `after_step`.

        An optimizer that steps from losses alone has taken its step in `evaluate_losses`.
        """
        self.taken += 1
        if not self.is_forward_only:
            if self.scaler is not None:
                self.scaler.step(self.optimizer)
            elif self.trainable()[0].is_meta:
                step_without_values(self.optimizer)
            else:
                self.optimizer.step()
            self._holds_gradients = True
            if self.zero_grad != BEFORE_FORWARD:
                self._drop_gradients()
        if self.keeps_outputs == UNTIL_UPDATE:
            self.output = None
        self.method.after_step(self.model, self.optimizer, self.taken)

    def _drop_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=not self.zeroes_gradients)
        self._holds_gradients = False

    @property
    def is_forward_only(self) -> bool:
        """Whether the optimizer steps from losses, without a backward pass (MeZO)."""
        return getattr(self.optimizer, "FORWARD_ONLY", False)

    def evaluate_losses(self, micro_batches: int = 1) -> None:
        """Step an optimizer that asks for losses itself: its whole step, with dropout off.

        Args:
            micro_batches: How many micro-batches a loss is the mean of.
        """
        self.model.eval()
        self.optimizer.step(
            lambda: sum(self.forward() for _ in range(micro_batches)) / micro_batches
        )
        self.model.train()

    def run(self) -> None:
        """Run forward, backward and update once; only forward where nothing trains."""
        if self.is_forward_only:
            self.evaluate_losses()
            self.update()
            return
        loss = self.forward()
        if self.optimizer is not None:
            self.backward(loss)
            self.update()

    def trainable(self) -> list[nn.Parameter]:
        """Return the parameters that the optimizer steps."""
        return [param for param in self.model.parameters() if trains(param)]


def base_model(request: dict, device: str) -> nn.Module:
    """Build the model of a profile's request in fp32, before a method adapts it.

    Args:
        request: A profile's request, with `shapes` and `model`.
        device: Where the model is built: `meta`, `cpu` or `cuda`.

    Raises:
        ValueError: The device has too little memory for its weights.
    """
    shapes = request["shapes"]
    task, classes = shapes["task"], shapes["classes"]
    if device != "meta":
        build.check_room(request["model"], task, classes, device)
    attention = request.get("attention")
    by_shapes = attention == "flash" and device == "meta"  # transformers would look for flash-attn
    name = None if by_shapes else build.ATTENTION.get(attention, attention)
    model = build.checked_from_shapes(request["model"], task, classes, device, name)
    if by_shapes:
        importlib.import_module(FLASH_SHAPES).use(model)
    # A KV cache serves generation alone, and training switches it off.
    model.config.use_cache = request.get("use_cache", False)
    return model


def adapted(
    request: dict, device: str, model: nn.Module | None = None
) -> tuple[Method, nn.Module, dict]:
    """Store the base as the method wants it (fp32, bf16, quantized) and adapt it.

    Args:
        request: A profile's request, with `shapes`, `method` and `model`.
        device: Where the model is, or is built.
        model: The base model; by default a new one is built.

    Returns:
        The method, the adapted model, and the model's names (`build.names`).

    Raises:
        Unsupported: The method cannot train this model; the message is the reason.
        ValueError: The device has too little memory for the weights of a new base model.
    """
    entry = request["method"]
    names = build.names(request["model"], request["shapes"]["task"])
    # Methods create their parameters without naming a device, so the default device is set.
    with torch.device(device):
        if model is None:
            model = base_model(request, device)
        precision = storage.DTYPES[request.get("precision", "fp32")]
        model = storage.store(model, entry["weights"], names, precision, entry.get("compute"))
        method, model = adapt(entry, model, names)
    return method, model, names


def step(
    request: dict,
    device: str,
    watch: Callable[[nn.Module], None] | None = None,
    model: nn.Module | None = None,
) -> Step:
    """Build the training step of a profile's request.

    Args:
        request: With `shapes`, `method`, `model` and optionally `checkpointing`, `loss`,
            `accumulation_steps`, `precision`, `attention`, `padded`, `masks`, `packed`,
            `keeps_outputs`, `use_cache`, `zeroes_gradients`, `zero_grad`, `loss_input`,
            `keeps_softmax_inputs`, `keeps_quantized_inputs`, `quantized_from`, `modules`,
            `adapted_on_gpu`, `eval_batch_size`, `generated_tokens` and `prompt_length_tokens`.
        device: Where the step runs.
        watch: Called with the adapted model before its optimizer is built. A hook registered here
            runs before the hooks of an optimizer that frees gradients inside backward.
        model: The base model; by default a new one is built.

    Raises:
        Unsupported: The method cannot train this model; the message is the reason.
        ValueError: The device has too little memory for the weights of a new base model.
    """
    method, model, names = adapted(request, device, model)
    model.train()
    if request.get("checkpointing"):
        build.checkpoint(model)
    loss = request.get("loss", "full")
    if loss != "full":
        importlib.import_module(CHUNKED_LOSS).use(model, loss)
    other_loops.hold(model, request)
    if watch:
        watch(model)
    optimizer = None
    if any(param.requires_grad for param in model.parameters()):
        optimizer = profiled_optimizer(request["method"], method, model, names)
    return Step(
        method,
        model,
        optimizer,
        step_batch.batch(request, device),
        step_batch.evaluation_batch(request, device),
        generated_tokens=request.get("generated_tokens", 0),
        accumulation_steps=request.get("accumulation_steps", 1),
        loss=loss,
        precision=request.get("precision", "fp32"),
        keeps_outputs=request.get("keeps_outputs", False),
        zeroes_gradients=request.get("zeroes_gradients", False),
        zero_grad=request.get("zero_grad", "after_update"),
        scaler=_scaler(request, device, optimizer),
    )


def _scaler(request: dict, device: str, optimizer: torch.optim.Optimizer | None) -> Any:
    """What scales the loss in fp16; None for an optimizer that steps from losses (MeZO)."""
    is_scaled = request.get("precision") == "fp16" and optimizer is not None
    if not is_scaled or getattr(optimizer, "FORWARD_ONLY", False):
        return None
    return importlib.import_module(LOSS_SCALING).ProfileScaler(device)


def profiled_optimizer(
    entry: dict, method: Method, model: nn.Module, names: dict
) -> torch.optim.Optimizer:
    """The optimizer of a resolved entry, as a profile takes it.

    An optimizer that trains some blocks at a time (BAdam, LISA) keeps its largest blocks active:
    those are the steps that need most memory for gradients and state.

    Args:
        entry: The resolved entry.
        method: The entry's method.
        model: The adapted model.
        names: From `models.build.names`.
    """
    optimizer = build_optimizer(entry, method, model, names, seed=0)
    if hasattr(optimizer, "assume_largest"):
        optimizer.assume_largest()
    return optimizer
