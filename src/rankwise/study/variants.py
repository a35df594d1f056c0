"""Named variants of a grid's methods: the same method beside itself, with other settings.

A variant changes what the grid has: options of methods (`override`) and how they are run. That is
the `schedule` of a grid that trains, and the `settings` of one that profiles. `parts` makes a grid
of its own of each variant, so that everything else looks at grids without variants. Standard
library only.
"""

from collections.abc import Iterator

from rankwise.core.config import ConfigError, merge, without
from rankwise.study.grids import VARIANT_MARK, base_name, method_names
from rankwise.study.resolve import takes_rank

# Parts of a method's entry whose values are options with names of their own.
NESTED = ("options", "optimizer")
LONGEST = 32  # letters of what differs, in a label; a longer text gives way to the variant's name
Where = tuple[str, str]  # file, key
Path = tuple[str, ...]  # keys down to a value, from `method`, `schedule` or `settings` on
Changes = dict[Path, object]


def parts(library: dict, study: dict, grid: dict, where: Where) -> list[dict]:
    """The grid without its variants, and then a grid for each variant.

    Args:
        library: Checked entries by kind and name.
        study: The checked study.
        grid: A grid of the study, whose names are checked.
        where: File and key of the grid.

    Returns:
        Grids, those of variants in the order of their names. That of a variant has the key
        `variant`, its name; its methods are those that the variant is for, and its override,
        schedule and settings are the grid's with the variant's changes.

    Raises:
        ConfigError: a variant names a method that it is not for, or has no change at all.
    """
    file, key = where
    grids = [without(grid, ("variants",))]
    # Not in the order of the study: the keys of a request are sorted, and a table's job plans again
    # from its request.
    for name, variant in sorted(grid.get("variants", {}).items()):
        own_where = (file, f"{key}.variants.{name}")
        methods = _methods(variant, method_names(library, grid), own_where)
        _check_ranks(library, variant, own_where)
        grids.append(_part(study, grid, name, methods))
    return grids


def _methods(variant: dict, of_grid: list[str], where: Where) -> list[str]:
    """The methods that a variant is for, in the order of the grid."""
    file, key = where
    override = variant.get("override", {})
    if not override and not variant.get("schedule") and not variant.get("settings"):
        allowed = (
            "what it changes: override, the schedule of a grid that trains, or the settings of one "
            "that profiles"
        )
        raise ConfigError(file, key, "no change", allowed)
    _check_known(variant.get("methods", ()), of_grid, (file, f"{key}.methods"))
    wanted = variant.get("methods") or list(override) or of_grid
    _check_known(override, of_grid, (file, f"{key}.override"))
    _check_known(override, wanted, (file, f"{key}.override"))
    return [name for name in of_grid if name in wanted]


def _check_ranks(library: dict, variant: dict, where: Where) -> None:
    """Check that no variant sets the rank that a grid gives: it would have a wrong name."""
    file, key = where
    for name, changed in variant.get("override", {}).items():
        for part in NESTED:
            sets_rank = "rank" in changed.get(part, {})
            if sets_rank and takes_rank(library["methods"][name], name):
                allowed = "other options: the ranks of a curve are those of the grid"
                raise ConfigError(file, f"{key}.override.{name}.{part}", "rank", allowed)


def _check_known(names: object, known: list[str], where: Where) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(*where, name, known)


def _part(study: dict, grid: dict, name: str, methods: list[str]) -> dict:
    """The grid of one variant."""
    variant = grid["variants"][name]
    # A grid's override of a method replaces the study's; a variant's changes are on top of both.
    before = {**study["override"], **grid["override"]}
    after = variant.get("override", {})
    override = {method: merge(before.get(method, {}), after.get(method, {})) for method in methods}
    settings = variant.get("settings", {})
    part = {**without(grid, ("variants",)), **settings, "variant": name, "methods": methods}
    part["override"] = override
    if "schedule" in grid:
        part["schedule"] = {**grid["schedule"], **variant.get("schedule", {})}
    if "search" in grid:
        own = {key: value for key, value in grid["search"]["methods"].items() if key in methods}
        part["search"] = {**grid["search"], "methods": own}
    return part


# Labels -------------------------------------------------------------------------------------------


def changes(variant: dict, method: str) -> Changes:
    """The values that a variant sets for a method, as the study has them.

    Args:
        variant: The variant of a grid.
        method: Name of the method's entry.

    Returns:
        Keys down to a value -> the value, sorted by the keys.
    """
    return dict(sorted(_changes(variant, method)))


def _changes(variant: dict, method: str) -> Iterator[tuple[Path, object]]:
    for name, value in variant.get("override", {}).get(method, {}).items():
        if name in NESTED:
            for option, option_value in value.items():
                yield ("method", name, option), option_value
        else:
            yield ("method", name), value
    for section in ("schedule", "settings"):
        for name, value in variant.get(section, {}).items():
            yield (section, name), value


def of_method(changed: Changes) -> Changes:
    """Changes of the method's entry, without those of the schedule or of a profile's settings."""
    return {path: value for path, value in changed.items() if path[0] == "method"}


def value_at(settings: dict, path: Path) -> object:
    """The value that keys lead to in nested settings; None where there is none.

    Args:
        settings: With the keys `method`, a resolved entry, `schedule` and `settings`.
        path: The keys.
    """
    value: object = settings
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def text(changed: Changes) -> str:
    """Changes in words: `learning rate 0.001, epochs 1`."""
    return ", ".join(_words(path, value) for path, value in changed.items())


def _words(path: Path, value: object) -> str:
    """One changed value: `learning rate 0.001`, `rslora`, `no dora`."""
    # The name of an optimizer's module is that of the optimizer.
    name = "optimizer" if path[-1] == "module" else path[-1].replace("_", " ")
    if isinstance(value, bool):
        return name if value else f"no {name}"
    if value is None:
        return f"no {name}"
    if isinstance(value, list):
        return f"{name} {'+'.join(map(str, value)) or 'none'}"
    return f"{name} {value:.12g}" if isinstance(value, float) else f"{name} {value}"


def labels(methods: dict[str, dict], words_by_name: dict[str, str]) -> list[list[str]]:
    """The name of every method, and of every variant right after its method, with its label.

    Args:
        methods: Entries of config/methods.yaml.
        words_by_name: Name of a variant, such as `lora@fast` -> what differs, in words.

    Returns:
        [name, label] in the order of the entries. No two labels of variants are the same.
    """
    taken = {entry.get("label", name) for name, entry in methods.items()}
    listed = []
    for method, entry in methods.items():
        label = entry.get("label", method)
        listed.append([method, label])
        for name, text in words_by_name.items():
            if base_name(name) == method:
                own = _label(label, text)
                if own in taken:
                    own = f"{own}, {name.partition(VARIANT_MARK)[2]}"
                taken.add(own)
                listed.append([name, own])
    return listed


def _label(label: str, text: str) -> str:
    """`LoRA (epochs 1)`; where the label has brackets, `LoRA (alpha 16) with epochs 1`."""
    return f"{label} with {text}" if label.endswith(")") else f"{label} ({text})"
