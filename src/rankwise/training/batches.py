"""The training batches, epoch after epoch, from a position that a checkpoint can store."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def tokens_of(batch: dict[str, Tensor]) -> int:
    """How many tokens a batch has without padding, those that a decoder reads included.

    A mask is (batch, tokens) with 1 at each token, or (batch, 1, tokens, tokens) with 0 where a
    token sees another; there, padding sees nothing.
    """
    masks = [mask for name, mask in batch.items() if name.endswith("attention_mask")]
    return sum(int((mask == 0).any(-1).sum() if mask.ndim == 4 else mask.sum()) for mask in masks)


class ResumableBatches:
    """Iterate over a loader's epochs, optionally from a saved position.

    After a resume, the remaining batches equal those that the interrupted run would have seen.

    Args:
        loader: Gives the batches of one epoch each time it is iterated over.
        generators: Every random generator that the loader and its collate function draw from.
        position: The `position` of an interrupted run, or None to begin with the first epoch.

    Attributes:
        position: `batches`, how many batches of this epoch were handed out, and `generators`, the
            generators' states at the beginning of the epoch.
    """

    def __init__(
        self, loader: Iterable[dict], generators: list[torch.Generator], position: dict | None
    ):
        self.loader = loader
        self.generators = generators
        self.position = position or self._epoch_start()
        self._to_skip = self.position["batches"]
        for generator, state in zip(generators, self.position["generators"], strict=True):
            generator.set_state(state)

    def windows(self, micro_batches: int) -> Iterator[list[dict]]:
        """The batches of one epoch by optimizer update; after a resume, what is left of the epoch.

        The batches that were already used are drawn again and dropped, because the following random
        draws (such as the masks of masked language modelling) depend on them.

        Args:
            micro_batches: Batches in a window. The last window of an epoch may have fewer.
        """
        to_skip = self._to_skip
        self._to_skip = 0
        self.position = self._epoch_start()
        window: list[dict] = []
        for batch in self.loader:
            self.position["batches"] += 1
            if self.position["batches"] > to_skip:
                window.append(batch)
            if len(window) == micro_batches:
                yield window
                window = []
        if window:
            yield window

    def _epoch_start(self) -> dict:
        states = [generator.get_state() for generator in self.generators]
        return {"batches": 0, "generators": states}
