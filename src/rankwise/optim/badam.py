"""BAdam: Adam on one block of layers at a time.

Source: Luo, Yu & Li 2024, arXiv 2404.02827, Algorithm 1. The partition is that of the authors'
code: each layer is a block, the embeddings are one, and all other parameters are one.
Where we differ: the authors' code keeps an fp32 copy of the active block for weights in bf16; here
weights are stepped in their own dtype, and second moments are fp32.
"""

import random
from collections.abc import Hashable
from typing import Literal

from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.blocks import BlockOptimizer
from rankwise.optim.parts.stacked import settings


class BAdam(BlockOptimizer):
    """Block coordinate descent: `interval_steps` steps of Adam on a block, then on the next one.

        W_b <- Adam(W_b), t = 1 .. interval_steps           for the active block b alone
        m, v <- dropped; the next block starts at t = 1 with m = v = 0

    Only the active block requires gradients. The memory of gradients and state is therefore largest
    in the turn of the largest block, and that is what a profile assumes. The turn of a block nearer
    to the input keeps more activations. Without groups that have "block" all parameters are one
    block.

    Args:
        params: parameters, or parameter groups, in which "block" names the block.
        lr: learning rate.
        interval_steps: steps on a block before the next one.
        order: which block is next: by the order of the groups, against it, or a random permutation
            for each pass over all blocks.
        betas: decays of Adam's two moments, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled, per unit of learning rate, of the active block.
        seed: of the random permutations.

    References:
        Luo, Yu & Li 2024, BAdam, arXiv 2404.02827, Algorithm 1.

    Example:
        >>> optimizer = BAdam(model.parameters(), lr=1e-3, interval_steps=50)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        interval_steps: int = 100,
        order: Literal["random", "ascending", "descending"] = "random",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        seed: int = 0,
    ):
        super().__init__(params, settings(locals()))

    def active_in(self, turn: int) -> set[Hashable]:
        """Return the one block of a turn."""
        blocks = list(self.blocks())
        first = self.param_groups[0]
        if first["order"] == "descending":
            blocks.reverse()
        elif first["order"] == "random":
            # A string, because Random takes no tuple; it is hashed the same way everywhere.
            random.Random(f"{first['seed']} {turn // len(blocks)}").shuffle(blocks)
        return {blocks[turn % len(blocks)]}

    def largest(self) -> set[Hashable]:
        """Return the block of most numbers."""
        sizes = self.blocks()
        return {max(sizes, key=sizes.__getitem__)}
