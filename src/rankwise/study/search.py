"""A search: every method of a grid tries as many settings as every other, and reads only the train
split.

A trial is named after its settings, not numbered: a value that is added anywhere is a new trial and
renames no other. The request of a trial is that of a training run whose reported split is the
selection slice, so a trial never reads the test split.

What a search chooses is known only once it has run. The request of a run that follows a search
therefore leaves the searched settings open and holds the digest of the choice's request, which in
turn holds the digests of the trials' requests. Standard library only: the plan imports this module.
"""

import copy
import itertools
import math
import re
from collections.abc import Iterator

from rankwise.core import provenance
from rankwise.core.config import ConfigError, pick, without
from rankwise.study.grids import Cell
from rankwise.study.resolve import module_options

# The module that a run which follows a search loads to apply the choice.
SETTLED = "rankwise.study.search_choice"
RATES = ("learning_rates", "learning_rate_factors")
# What `search: auto` stands for: multiples of each method's own learning rate, two a decade.
AUTO = {"learning_rate_factors": [0.1, 0.3, 1, 3, 10, 30]}
# Part of a method's entry -> the folder of the module that takes its options.
PARTS = {"options": "methods", "optimizer": "optim"}
Where = tuple[str, str]  # file, key
# One searched setting: its part of the entry (or "learning_rate"), the option's name, its values.
Setting = tuple[str, str, list]


def with_auto(study: dict, file: str) -> dict:
    """The study as its file has it, with `AUTO` in place of each `search: auto`.

    Args:
        study: Not yet checked.
        file: The study's file, for messages.

    Raises:
        ConfigError: A grid's search is another word than auto.
    """
    if not isinstance(study.get("train"), list):
        return study
    grids = []
    for number, grid in enumerate(study["train"]):
        found = grid.get("search") if isinstance(grid, dict) else None
        if isinstance(found, str):
            if found != "auto":
                allowed = "auto, or a mapping of settings to try"
                raise ConfigError(file, f"train.{number}.search", found, allowed)
            grid = {**grid, "search": copy.deepcopy(AUTO)}  # noqa: PLW2901
        grids.append(grid)
    return {**study, "train": grids}


def trials(search: dict, name: str, method: dict, where: Where) -> dict[str, dict]:
    """The trials of one method.

    Args:
        search: The grid's `search`.
        name: The method's name.
        method: The method's entry with the study's overrides.
        where: File and key of the search.

    Returns:
        Trial -> what it changes in the entry: `learning_rate`, `options`, `optimizer`.

    Raises:
        ConfigError: the method has no such option, two trials would be the same, or both kinds of
            learning rate are given.
    """
    values = _values(search, name, where)
    rates = _learning_rates(values, method)
    settings = [("learning_rate", "", rates), *_options(values, name, method, where)]
    changes_by_trial = {}
    for chosen in itertools.product(*(choices for _, _, choices in settings)):
        trial, changes = _trial(settings, chosen)
        changes_by_trial[trial] = changes
    if len(changes_by_trial) < math.prod(len(choices) for _, _, choices in settings):
        raise ConfigError(*where, ", ".join(changes_by_trial), f"values of {name} that differ")
    return changes_by_trial


def _values(search: dict, name: str, where: Where) -> dict:
    """The values that one method tries.

    Values below the method's name replace those for all methods.
    """
    file, key = where
    own = search["methods"].get(name, {})
    for given, given_key in ((search, key), (own, f"{key}.methods.{name}")):
        if set(RATES) <= set(given):
            raise ConfigError(file, given_key, " and ".join(RATES), "one of them")
    has_own_rates = bool(set(RATES) & set(own))
    shared = without(search, RATES) if has_own_rates else search
    return {**shared, **own}


def _learning_rates(values: dict, method: dict) -> list[float]:
    """The learning rates to try, to 6 digits.

    A product such as 3 * 1e-3 has noise in its last digits.
    """
    factors = values.get("learning_rate_factors", [1])
    multiples = [factor * method["learning_rate"] for factor in factors]
    rates = values.get("learning_rates") or multiples
    return [float(f"{rate:.6g}") for rate in rates]


def _options(values: dict, name: str, method: dict, where: Where) -> Iterator[Setting]:
    """The searched options of a method and of its optimizer."""
    file, key = where
    for part, folder in PARTS.items():
        module = method["module"] if part == "options" else method["optimizer"]["module"]
        # The rank is not searched: it tells cells apart.
        known = sorted({*module_options(folder, module, f"{name}.{part}")} - {"rank"})
        for option, choices in values[part].items():
            if option not in known:
                allowed = (
                    f"what {name} has ({', '.join(known) or 'none'}); "
                    "what only some methods have stands below methods.NAME"
                )
                raise ConfigError(file, f"{key}.{part}", option, allowed)
            yield part, option, choices


def _trial(settings: list[Setting], chosen: tuple) -> tuple[str, dict]:
    """The name of a trial and what it changes, from the value `chosen` for each setting."""
    words = []
    changes: dict = {part: {} for part in PARTS}
    for (part, option, _), value in zip(settings, chosen, strict=True):
        words.append(_word(option or "lr", value))
        if option:
            changes[part][option] = value
        else:
            changes[part] = value
    return "-".join(words), changes


def _word(name: str, value: object) -> str:
    """`lr0.003`, `alpha16`: a name and its value as a path can hold them."""
    return name + re.sub(r"[^A-Za-z0-9_.+]+", "-", str(value))


def check_budget(search: dict, methods: dict[Cell, dict[str, dict]], where: Where) -> None:
    """Check that every curve tries as many different settings as every other.

    Args:
        search: The grid's `search`.
        methods: Curve -> trial -> the method's resolved entry.
        where: File and key of the search.

    Raises:
        ConfigError: the methods have different numbers of trials, two trials of a curve resolve to
            the same settings, or `search.methods` names a method that the grid does not have.
    """
    file, key = where
    trials_by_method = {curve.method: entries for curve, entries in methods.items()}
    for name in search["methods"]:
        pick(trials_by_method, name, file, f"{key}.methods")
    counts = {name: len(entries) for name, entries in trials_by_method.items()}
    if len(set(counts.values())) > 1:
        got = ", ".join(f"{name} {count}" for name, count in counts.items())
        allowed = "as many trials for each method; methods.NAME gives one more values of its own"
        raise ConfigError(file, key, got, allowed)
    for curve, entries in methods.items():
        if len({provenance.digest(entry) for entry in entries.values()}) < len(entries):
            allowed = f"trials of {curve.folder} that differ"
            raise ConfigError(file, key, ", ".join(entries), allowed)


def settings(trial: dict, method: dict) -> dict:
    """The searched settings with their values in the resolved entry.

    There `rank` has become a number.

    Args:
        trial: What the trial changes in the method's entry.
        method: The method's resolved entry, with these changes.

    Returns:
        `learning_rate`, `options` and `optimizer`.
    """
    options = {part: {name: method[part][name] for name in trial[part]} for part in PARTS}
    return {"learning_rate": method["learning_rate"], **options}


def trial_request(training: dict, schedule: dict, trial: dict) -> dict:
    """The request of a trial.

    Args:
        training: The request that a training run with the trial's settings would have.
        schedule: What the search changes in the schedule.
        trial: What the trial changes in the method's entry.
    """
    return {
        **training,
        "dataset": {**training["dataset"], "report_split": "selection"},
        "schedule": {**training["schedule"], **schedule},
        "trial": settings(trial, training["method"]),
    }


def open_request(training: dict, trials: dict[str, dict], choice: dict) -> dict:
    """The request of a training run that follows a search.

    It leaves open the settings that the search chooses.

    Args:
        training: The request of the run if there were no search.
        trials: Trial -> what it changes in the method's entry.
        choice: The request of the choice among the trials.
    """
    any_trial = next(iter(trials.values()))  # all trials of a search change the same settings
    method = without(training["method"], ("learning_rate",))
    for part in PARTS:
        method[part] = without(method[part], tuple(any_trial[part]))
    inputs = {**training["inputs"], "search": provenance.digest(choice)}
    return {**training, "method": method, "inputs": inputs}
