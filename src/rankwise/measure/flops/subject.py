"""The model whose FLOPs are counted: adapted, on the meta device, with a dense base."""

import importlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankwise.core.errors import Unsupported
from rankwise.measure.batch import meta_loss
from rankwise.measure.step import CHUNKED_LOSS, profiled_optimizer
from rankwise.methods.parts.base import Method, adapt, unreleased
from rankwise.models import build, experts


@dataclass
class Subject:
    """An adapted model on the meta device, in the state that most of its training is in.

    Attributes:
        request: The profile's request.
        method: The method that adapted the model.
        model: The adapted model.
        names: The model's names (`build.names`).
    """

    request: dict
    method: Method
    model: nn.Module
    names: dict

    @classmethod
    def of(cls, request: dict, attention: str | None) -> "Subject":
        """Build the subject of a request.

        Args:
            request: A profile's request.
            attention: `eager` forms the products of attention one by one, so every counter sees
                them. None chooses as training does: torch's fused attention (sdpa), or eager for
                families without it.

        Raises:
            Unsupported: The method cannot train this model, or its products cannot be counted; the
                message is the reason.
        """
        shapes = request["shapes"]
        model = build.checked_from_shapes(
            request["model"], shapes["task"], shapes["classes"], "meta", attention
        )
        if experts.stacked(model):
            reason = "FLOPs of a mixture of experts are not counted: its experts' products are one"
            raise Unsupported(f"{reason} call, which torch's counter does not know in fp32")
        names = build.names(request["model"], shapes["task"])
        with torch.device("meta"):
            method, model = adapt(request["method"], model, names)
        method.settle(model.train())
        loss = request.get("loss", "full")
        if loss != "full":
            importlib.import_module(CHUNKED_LOSS).use(model, loss)
        return cls(request, method, model, names)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """A loss whose gradients have the shapes of the real one."""
        if self.request.get("loss", "full") != "full":
            return self.model(**batch, labels=batch["input_ids"]).loss
        return meta_loss(self.model, batch, self.request["shapes"]["task"])

    def optimizer(self) -> torch.optim.Optimizer | None:
        """Build the optimizer, with its state where that can be allocated before a step.

        The optimizer never releases gradients inside backward here: its FLOPs are counted apart.

        Returns:
            The optimizer; None where nothing trains.
        """
        if not any(param.requires_grad for param in self.model.parameters()):
            return None
        entry = unreleased(self.request["method"])
        optimizer = profiled_optimizer(entry, self.method, self.model, self.names)
        # torch's own optimizers have no `allocate`; they create their state in the first step.
        if hasattr(optimizer, "allocate"):
            optimizer.allocate()
        return optimizer
