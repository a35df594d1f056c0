"""A grid of a study: its names, checked, and the cells that it spans: model x dataset x method x rank (x seed)."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from rankwise.core.config import ConfigError, pick
from rankwise.study import measurements
from rankwise.study.resolve import check_pair, takes_rank

ALL = "all"


class Cell(NamedTuple):
    """One run: names of config entries; rank 0 where the method has no rank.

    The seed is None in a profile, the trial outside a search.
    """

    model: str
    dataset: str
    method: str
    rank: int
    seed: int | None = None
    trial: str | None = None

    @property
    def curve(self) -> "Cell":
        """What the seeds and trials of a cell have in common."""
        return self._replace(seed=None, trial=None)

    @property
    def folder(self) -> str:
        trial = "" if self.trial is None else f"/{self.trial}"
        seed = "" if self.seed is None else f"/seed{self.seed}"
        return f"{self.model}/{self.dataset}/{self.method}/r{self.rank}{trial}{seed}"


def cells(library: dict, grid: dict) -> Iterator[Cell]:
    """The grid's cells, in its order."""
    for model, dataset, method in itertools.product(
        grid["models"], grid["datasets"], method_names(library, grid)
    ):
        ranks = grid["ranks"] if takes_rank(library["methods"][method], method) else [0]
        for rank, seed in itertools.product(ranks, grid.get("seeds", [None])):
            yield Cell(model, dataset, method, rank, seed)


def method_names(library: dict, grid: dict) -> list[str]:
    """The methods of a grid; `all` stands for every entry of config/methods.yaml."""
    return list(library["methods"]) if grid["methods"] == ALL else grid["methods"]


def tokens(library: dict, grid: dict, dataset: str) -> int:
    """The length of a text in this grid."""
    return grid.get("sequence_length_tokens", library["datasets"][dataset]["max_length_tokens"])


def check_names(library: dict, grid: dict, kind: str, where: tuple[str, str]) -> None:
    """Whether the grid names entries, and pairs that can be had; `kind` is train or profile, `where` the grid's file and key.

    Raises:
        ConfigError: a name is unknown, a model has no weights to train or no head for a task, or a text is too long for it.
    """
    file, key = where
    named = {**grid, "methods": method_names(library, grid)}
    for entries in ("models", "datasets", "methods"):
        for name in named[entries]:
            pick(library[entries], name, file, f"{key}.{entries}")
    ready = {
        name: entry
        for name, entry in library["models"].items()
        if kind == "profile" or "weights" in entry
    }
    for name in grid["models"]:
        if name not in ready:
            raise ConfigError(
                file, f"{key}.models", name, f"models with weights: {', '.join(ready)}"
            )
    for model, dataset in itertools.product(grid["models"], grid["datasets"]):
        check_pair(library, model, dataset, tokens(library, grid, dataset), where)
        measurements.check_lengths(
            grid, model, library["models"][model]["max_positions_tokens"], where
        )
