"""A search: every method of a grid tries as many settings as every other, on train and the selection slice alone.

A trial is called by its settings, not by a number, so a value added anywhere is a new trial and moves no other. Its request is
that of a training whose reported split is the selection slice: it has no use for the other. What a search chooses is known only
when it has run, so the request of a run that follows leaves those settings open and holds the digest of the choice's request,
which holds those of the trials. Standard library only: the plan imports this.
"""

import itertools
import math
import re
from collections.abc import Iterator

from rankwise.core import provenance
from rankwise.core.config import ConfigError, pick, without
from rankwise.study.grids import Cell
from rankwise.study.resolve import module_options

SETTLED = "rankwise.study.search_choice"  # what a run that follows a search executes beside others
RATES = ("learning_rates", "learning_rate_factors")
PARTS = {"options": "methods", "optimizer": "optim"}  # of a method's entry -> where its module lies
Where = tuple[str, str]  # file, key


def trials(search: dict, name: str, method: dict, where: Where) -> dict[str, dict]:
    """Trial -> what it changes in the entry `method`, called `name`: learning_rate, options, optimizer.

    Raises:
        ConfigError: the method has no such option, values are the same, or both kinds of learning rate are given.
    """
    values = _values(search, name, where)
    found = {}
    rates = values.get("learning_rates") or [
        r * method["learning_rate"] for r in values.get("learning_rate_factors", [1])
    ]
    lists = [
        ("learning_rate", "", [float(f"{rate:.6g}") for rate in rates]),
        *_options(values, name, method, where),
    ]
    for case in itertools.product(*(some for _, _, some in lists)):
        trial: dict = {part: {} for part in PARTS}
        for (part, option, _), value in zip(lists, case, strict=True):
            trial |= {part: {**trial[part], option: value}} if option else {part: value}
        found[
            "-".join(
                _word(option or "lr", value)
                for (_, option, _), value in zip(lists, case, strict=True)
            )
        ] = trial
    if len(found) < math.prod(len(some) for _, _, some in lists):
        raise ConfigError(*where, ", ".join(found), f"values of {name} that differ")
    return found


def _values(search: dict, name: str, where: Where) -> dict:
    """The values that one method tries: what stands below its name replaces what stands for all."""
    own = search["methods"].get(name, {})
    for given, key in ((search, where[1]), (own, f"{where[1]}.methods.{name}")):
        if set(RATES) <= set(given):
            raise ConfigError(where[0], key, " and ".join(RATES), "one of them")
    return {**(without(search, RATES) if set(RATES) & set(own) else search), **own}


def _options(
    values: dict, name: str, method: dict, where: Where
) -> Iterator[tuple[str, str, list]]:
    """(part of the entry, option, its values)."""
    for part, folder in PARTS.items():
        module = method["module"] if part == "options" else method["optimizer"]["module"]
        known = sorted({*module_options(folder, module, f"{name}.{part}")} - {"rank"})
        for option, some in values[part].items():
            if option not in known:
                words = f"what {name} has ({', '.join(known) or 'none'}); what only some methods have stands below methods.NAME"
                raise ConfigError(where[0], f"{where[1]}.{part}", option, words)
            yield part, option, some


def _word(name: str, value: object) -> str:
    """`lr0.003`, `alpha16`: what a path can hold."""
    return name + re.sub(r"[^A-Za-z0-9_.+]+", "-", str(value))


def check_budget(search: dict, methods: dict[Cell, dict[str, dict]], where: Where) -> None:
    """Whether every curve tries as many different settings; `methods` has the resolved entry of each trial, by curve.

    Raises:
        ConfigError: says how many each method has, names one of which two trials are the same, or one that the grid has not.
    """
    for name in search["methods"]:
        pick({curve.method: curve for curve in methods}, name, where[0], f"{where[1]}.methods")
    counts = {curve.method: len(trials) for curve, trials in methods.items()}
    if len(set(counts.values())) > 1:
        got = ", ".join(f"{name} {number}" for name, number in counts.items())
        raise ConfigError(
            *where,
            got,
            "as many trials for each method; methods.NAME gives one more values of its own",
        )
    for curve, trials in methods.items():
        if len({provenance.digest(method) for method in trials.values()}) < len(trials):
            raise ConfigError(*where, ", ".join(trials), f"trials of {curve.folder} that differ")


def settings(trial: dict, method: dict) -> dict:
    """The values of a trial as they stand in its resolved entry, where `rank` has become a number."""
    options = {part: {name: method[part][name] for name in trial[part]} for part in PARTS}
    return {"learning_rate": method["learning_rate"], **options}


def trial_request(training: dict, schedule: dict, trial: dict) -> dict:
    """The request of a trial, from that of a training."""
    dataset = {**training["dataset"], "report_split": "selection"}
    schedule = {**training["schedule"], **schedule}
    return {
        **training,
        "dataset": dataset,
        "schedule": schedule,
        "trial": settings(trial, training["method"]),
    }


def open_request(training: dict, trials: dict[str, dict], choice: dict) -> dict:
    """The request of a training that follows a search: without the settings that `choice`, a request, will choose."""
    searched = {part: tuple(next(iter(trials.values()))[part]) for part in PARTS}
    method = {**without(training["method"], ("learning_rate",))}
    method |= {part: without(method[part], names) for part, names in searched.items()}
    return {
        **training,
        "method": method,
        "inputs": {**training["inputs"], "search": provenance.digest(choice)},
    }
