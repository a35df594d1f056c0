"""One training step from shapes, taken apart into what measures look at: forward, backward, update.

The model has random weights, or none (device meta); sequences fill their length, so that no attention mask is needed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankwise.methods.parts.base import Method, adapt, build_optimizer
from rankwise.models import build, storage


@dataclass
class Step:
    """A model, its optimizer (None where nothing trains) and a batch."""

    method: Method
    model: nn.Module
    optimizer: torch.optim.Optimizer | None
    batch: dict[str, Tensor]
    taken: int = 0

    def forward(self) -> Tensor:
        """The loss."""
        return self.model(**self.batch).loss

    def update(self) -> None:
        """Step, drop the gradients, and let the method do what it does after a step."""
        self.taken += 1
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.after_step(self.model, self.optimizer, self.taken)

    def run(self) -> None:
        """Forward, backward and update, in one."""
        loss = self.forward()
        if self.optimizer is not None:
            loss.backward()
            self.update()

    def trainable(self) -> list[nn.Parameter]:
        """What the optimizer steps."""
        return [param for param in self.model.parameters() if param.requires_grad]


def base(request: dict, device: str) -> nn.Module:
    """The model of a profile's request, in fp32 and not adapted.

    Raises:
        ValueError: the device has no room for it.
    """
    shapes = request["shapes"]
    if device != "meta":
        build.check_room(request["model"], shapes["task"], shapes["classes"], device)
    return build.from_shapes(request["model"], shapes["task"], shapes["classes"], device)


def adapted(
    request: dict, device: str, model: nn.Module | None = None
) -> tuple[Method, nn.Module, dict]:
    """The method, the model as it stores and adapts it, and the names.

    Raises:
        Unsupported: the method cannot do this model, with the reason.
    """
    entry, names = request["method"], build.names(request["model"], request["shapes"]["task"])
    with torch.device(device):
        model = storage.store(
            base(request, device) if model is None else model, entry["weights"], names
        )
        return *adapt(entry, model, names), names


def step(
    request: dict,
    device: str,
    watch: Callable[[nn.Module], None] | None = None,
    model: nn.Module | None = None,
) -> Step:
    """The step of a request with `shapes`, `method`, `model` and `checkpointing`; `watch` sees the model before its optimizer.

    Raises:
        Unsupported: as in `adapted`.
    """
    method, model, names = adapted(request, device, model)
    model.train()
    if request.get("checkpointing"):
        build.checkpoint(model)
    if watch:
        watch(model)
    trains = any(param.requires_grad for param in model.parameters())
    optimizer = build_optimizer(request["method"], method, model, names, seed=0) if trains else None
    return Step(method, model, optimizer, batch(request, device))


def batch(request: dict, device: str) -> dict[str, Tensor]:
    """Random token ids (batch, length) and labels: a class a sequence, or the tokens themselves."""
    shapes = request["shapes"]
    size = (shapes["batch_size"], shapes["sequence_length_tokens"])
    ids = torch.randint(request["model"]["architecture"]["vocab_size"], size, device=device)
    labels = ids[:, 0] % max(shapes["classes"], 1) if shapes["task"] == "classification" else ids
    return {"input_ids": ids, "labels": labels}
