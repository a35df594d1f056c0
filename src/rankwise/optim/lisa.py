"""LISA: AdamW on a few random layers at a time, and always on everything outside of the layers.

Source: Pan et al. 2024, arXiv 2403.17919, Algorithm 1, with the uniform sampling of their
experiments. It is an optimizer here, not a method: it changes which parameters step, not the model.
Where we differ:

- The state of a layer that is not drawn again is dropped, and a layer that is drawn starts with
  fresh state. The paper does not say what becomes of it; kept, it would grow to AdamW's.
- Layers that are drawn in two periods in a row keep their state.
"""

import random
from collections.abc import Hashable

from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.blocks import BlockOptimizer
from rankwise.optim.parts.stacked import settings


class Lisa(BlockOptimizer):
    """AdamW on the embeddings, the head and `active_layers` random layers, which change by turns.

        every interval_steps steps: draw active_layers layers without replacement
        W <- AdamW(W)                                       for these, and outside of the layers

    Layers are the groups whose "block" is an integer; all other groups always step. Only what steps
    requires gradients. A profile assumes the largest layers. Without such groups it is AdamW.

    Args:
        params: parameters, or parameter groups, in which "block" is the number of the layer.
        lr: learning rate.
        active_layers: layers that step at a time.
        interval_steps: steps between two draws.
        betas: decays of Adam's two moments, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled, per unit of learning rate, of what steps.
        seed: of the draws.

    Raises:
        ValueError: more active layers than there are.

    References:
        Pan et al. 2024, LISA, arXiv 2403.17919, Algorithm 1.

    Example:
        >>> optimizer = Lisa(model.parameters(), lr=1e-3, active_layers=2)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        active_layers: int = 2,
        interval_steps: int = 20,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        seed: int = 0,
    ):
        super().__init__(params, settings(locals()))
        layers = len(self._layers())
        if layers and active_layers > layers:
            self.activate_all()
            raise ValueError(
                f"Lisa: active_layers: got {active_layers}, allowed: 1 to {layers}, the number of "
                "layers that train"
            )

    def active_in(self, turn: int) -> set[Hashable]:
        """Return the layers that are drawn for a turn, and all blocks that are no layers."""
        layers, first = self._layers(), self.param_groups[0]
        # A string, because Random takes no tuple; it is hashed the same way everywhere.
        draw = random.Random(f"{first['seed']} {turn}")
        drawn = draw.sample(layers, min(first["active_layers"], len(layers)))
        return set(self.blocks()) - set(layers) | set(drawn)

    def largest(self) -> set[Hashable]:
        """Return the layers of most numbers, and all blocks that are no layers."""
        sizes, layers = self.blocks(), self._layers()
        by_size = sorted(layers, key=lambda layer: -sizes[layer])
        return set(sizes) - set(layers) | set(by_size[: self.param_groups[0]["active_layers"]])

    def _layers(self) -> list[int]:
        return [block for block in self.blocks() if isinstance(block, int)]
