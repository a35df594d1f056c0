"""Every override of a study has an effect, and every study does something."""

from rankwise.core.config import ConfigError, merge
from rankwise.study import grids
from rankwise.study.resolve import has_module, takes_rank


def check_used(study: dict, library: dict, file: str) -> None:
    """Check that a study does something, and that every override changes a method of a grid.

    An override must leave a method its rank: the runs of all ranks would be the same run.

    Args:
        study: The checked study.
        library: Checked entries by kind and name.
        file: The study's file, for messages.

    Raises:
        ConfigError: there is no grid; or an override is of a method that no grid has, or takes
            away its rank.
    """
    if not study["train"] and not study["profile"]:
        raise ConfigError(file, "train, profile", "nothing", "a grid in at least one of them")
    every_grid = [*study["train"], *study["profile"]]
    for kind in ("train", "profile"):
        for number, grid in enumerate(study[kind]):
            where = file, f"{kind}.{number}.override"
            _check_names(grid["override"], _methods([grid], library), library, where)
    _check_names(study["override"], _methods(every_grid, library), library, (file, "override"))


def _methods(grids_of_study: list[dict], library: dict) -> set[str]:
    """The methods of some grids. A named variant, NAME@VARIANT, has its method's override."""
    names = [name for grid in grids_of_study for name in grids.method_names(library, grid)]
    return {name.partition("@")[0] for name in names}


def _check_names(override: dict, methods: set[str], library: dict, where: tuple[str, str]) -> None:
    """Check the names of the methods that an override changes."""
    for name, values in override.items():
        if name in methods:
            _check_rank_stays(name, library["methods"][name], values, where)
            continue
        if name not in library["methods"]:
            raise ConfigError(*where, name, library["methods"])
        grid = "a grid of the study" if where[1] == "override" else "this grid"
        allowed = f"methods of {grid} ({', '.join(sorted(methods))}): the override changes nothing"
        raise ConfigError(*where, name, allowed)


def _check_rank_stays(name: str, entry: dict, values: dict, where: tuple[str, str]) -> None:
    """Check that an override fixes no rank that the grid's `ranks` are to set."""
    merged = merge(entry, values)
    if not has_module("optim", merged["optimizer"]["module"]):
        return  # told where the entry is resolved
    if not takes_rank(entry, name) or takes_rank(merged, name):
        return
    file, key = where
    for part in ("options", "optimizer"):
        if "rank" in values.get(part, {}):
            allowed = f"nothing: the grid's ranks are the ranks of {name}"
            raise ConfigError(file, f"{key}.{name}.{part}.rank", values[part]["rank"], allowed)
