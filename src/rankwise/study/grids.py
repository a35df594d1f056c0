"""The cells of a grid: model x dataset x method x rank (x seed), and the check of its names."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from rankwise.core import store
from rankwise.core.config import ConfigError, pick
from rankwise.study import measurements
from rankwise.study.resolve import check_pair, takes_rank

ALL = "all"
VARIANT_MARK = "@"  # between the names of a method and of its variant: lora@fast


def split_name(method_name: str) -> tuple[str, str | None]:
    """The method and the variant that a name in a table stands for.

    Args:
        method_name: `lora@fast`, or `lora` for the method as it is.

    Returns:
        The name of the method's entry, and that of the variant; None without a variant.
    """
    method, mark, variant = method_name.partition(VARIANT_MARK)
    return method, variant if mark else None


def base_name(method_name: str) -> str:
    """The entry of config/methods.yaml behind a name in a table: `lora` for `lora@fast`."""
    return split_name(method_name)[0]


class Cell(NamedTuple):
    """One run or profile of a study, as names of configuration entries.

    The rank is 0 where the method has none. The seed is None in a profile; the trial is None
    outside a search; the variant is None for the method as it is; the evaluation is that of a run's
    kept weights, and None for the run itself.
    """

    model: str
    dataset: str
    method: str
    rank: int
    seed: int | None = None
    trial: str | None = None
    variant: str | None = None
    evaluation: str | None = None

    @property
    def method_name(self) -> str:
        """The method's name in tables and paths, with its variant's: `lora@fast`."""
        return f"{self.method}{VARIANT_MARK}{self.variant}" if self.variant else self.method

    @property
    def curve(self) -> "Cell":
        """The cell without seed, trial and evaluation, which the runs of a curve do not share."""
        return self._replace(seed=None, trial=None, evaluation=None)

    @property
    def run(self) -> "Cell":
        """The training run whose weights an evaluation's cell is about."""
        return self._replace(evaluation=None)

    @property
    def folder(self) -> str:
        """The part of a result's path that names the cell."""
        return store.cell_folder({**self.names, "method": self.method_name})

    @property
    def names(self) -> dict[str, str | int]:
        """The cell as a request has it: only what it has a value for.

        The variant is left out, because its name changes no result: the request has its settings.
        """
        plain = self._replace(variant=None)
        return {name: value for name, value in plain._asdict().items() if value is not None}

    @property
    def columns(self) -> dict[str, str | int]:
        """The cell as the rows of tables name it: `method` is `lora@fast` for a variant."""
        return {**self.names, "method": self.method_name}

    @classmethod
    def of_columns(cls, columns: dict[str, str | int]) -> "Cell":
        """The cell that `columns` names."""
        method, variant = split_name(columns["method"])
        return cls(**{**columns, "method": method}, variant=variant)


def cells(library: dict, grid: dict) -> Iterator[Cell]:
    """The cells of a grid, in its order. A method that takes no rank is there once, at rank 0.

    Args:
        library: Checked entries by kind and name.
        grid: The grid of a study, or the part of one that is a variant's.

    Raises:
        ConfigError: the class of a method or optimizer cannot be read.
    """
    for model, dataset, method in itertools.product(
        grid["models"], grid["datasets"], method_names(library, grid)
    ):
        ranks = grid["ranks"] if takes_rank(library["methods"][method], method) else [0]
        seeds = grid.get("seeds", [None])
        for rank, seed in itertools.product(ranks, seeds):
            yield Cell(model, dataset, method, rank, seed, variant=grid.get("variant"))


def method_names(library: dict, grid: dict) -> list[str]:
    """The methods of a grid; `all` stands for every entry of config/methods.yaml.

    Args:
        library: Checked entries by kind and name.
        grid: The grid of a study.
    """
    return list(library["methods"]) if grid["methods"] == ALL else grid["methods"]


def tokens(library: dict, grid: dict, dataset: str) -> int:
    """Length of a text in this grid, in tokens: its own, or else what the dataset cuts texts to.

    Args:
        library: Checked entries by kind and name.
        grid: The grid of a study.
        dataset: Name of the dataset.
    """
    longest = library["datasets"][dataset]["max_length_tokens"]
    given = grid.get("sequence_length_tokens", longest)
    return longest if given == measurements.OWN_LENGTHS else given


def check_names(library: dict, grid: dict, kind: str, where: tuple[str, str]) -> None:
    """Check that the grid names entries, and that each model can do each dataset's task.

    Args:
        library: Checked entries by kind and name.
        grid: The grid of a study.
        kind: `train` or `profile`.
        where: File and key of the grid.

    Raises:
        ConfigError: a name is unknown, a model has no weights to train or no head for a task, or a
            text is too long for a model.
    """
    file, key = where
    named = {**grid, "methods": method_names(library, grid)}
    for entries in ("models", "datasets", "methods"):
        for name in named[entries]:
            pick(library[entries], name, file, f"{key}.{entries}")
    if kind == "train":
        _check_weights(library, grid, where)
    for model, dataset in itertools.product(grid["models"], grid["datasets"]):
        check_pair(library, model, dataset, tokens(library, grid, dataset), where)
        positions = library["models"][model]["max_positions_tokens"]
        measurements.check_lengths(grid, model, positions, where)


def _check_weights(library: dict, grid: dict, where: tuple[str, str]) -> None:
    """A model without weights has shapes alone: it can be profiled and not trained."""
    file, key = where
    trainable = [name for name, entry in library["models"].items() if "weights" in entry]
    for name in grid["models"]:
        if name not in trainable:
            allowed = f"models with weights: {', '.join(trainable)}"
            raise ConfigError(file, f"{key}.models", name, allowed)
