"""The command `rankwise fits`: the largest micro-batch that memory of a given size holds.

A model is an entry, a folder with config.json or a repository on the hub: shapes are all that is
needed. Without a dataset the task is the model's usual one (`tasks.usual`), and the command says
which task, head and vocabulary it assumed, because they decide the size of the logits.
"""

# ruff: noqa: PLC0415 - torch takes seconds to import, and `--help` should not

import argparse
import re
import sys
from pathlib import Path

from rankwise.cli.fits_options import DENSE, LENGTH_TOKENS, OPTIONS, OWN_LENGTHS
from rankwise.cli.text import aligned
from rankwise.core import dataset_defaults, paths, tasks
from rankwise.core.config import ConfigError, library, named_model, pick
from rankwise.core.schemas import check

NONE_FITS = "0: not even one text of this length, or of any length, fits"
COMMAND = "rankwise fits"  # how messages call the place of a wrong value
PLAIN_OPTIMIZER = "adamw"  # --optimizer replaces it; a method with one of its own keeps that
ASSUMED = "assumed"  # the name of the dataset that stands for a task alone
CLASSES = ["0", "1"]  # of that dataset
ALL = ("all", "all-linear")  # targets that stand alone, as in an entry
# Keys of the grid, as regular expressions -> the options that they are made of.
KEYS = {
    "ranks": "--rank",
    "memory_gib": "--memory",
    "lengths_tokens": "--length",
    "sequence_length_tokens": "--length",
    "target_length_tokens": "--target-length",
    "accumulation_steps": "--accumulation",
    r"override\.[^:]+?\.weights": "--weights",
    r"override\.[^:]+?\.options\.targets": "--targets",
    r"override\.[^:]+?\.optimizer(?:\.module)?": "--optimizer",
    "(?P<same>precision|attention|device|gpu|loss|checkpointing)": r"--\g<same>",
}
# Options that a grid of profiles has by the same name; left out where the user gives none.
SAME_NAME = ("precision", "attention", "gpu", "target_length_tokens")


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `rankwise fits` to the command line."""
    command = commands.add_parser(
        "fits", help="the largest micro-batch that memory of a given size holds, by method"
    )
    for name, settings in OPTIONS.items():
        command.add_argument(name, **settings)
    command.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.study.plan import Plan

    _check_lengths(given)
    entries = library(Path.cwd())
    for name in given.methods:
        pick(entries["methods"], name, "config/methods.yaml", "methods")
    added, model = _with_model(given.model, entries, Path.cwd())
    dataset = _dataset(given, model, entries, added)
    grid = _grid(given, model, dataset, entries)
    study = {"name": "fits", "question": "?", "device": "cpu", "profile": [grid]}
    try:
        plan = Plan(study, Path.cwd(), COMMAND, added)
        requests = [plan.request("fits", cell) for cell in plan.cells("fits")]
    except ConfigError as error:
        raise ValueError(_in_options(str(error))) from None

    from rankwise.measure.memory.fits import table

    found = aligned(table(requests, _say_progress))
    parts = [_assumed(model, requests[0], given, entries), "", found]
    if "0" in found.split():
        parts.append(NONE_FITS)
    return "\n".join(parts), 0


def _in_options(sentence: str) -> str:
    """A sentence on a key of the grid that stands for the command line, with the option's name."""
    for key, option in KEYS.items():
        sentence = re.sub(rf"^{COMMAND}: profile\.0\.{key}(\.\d+)?(?=: )", option, sentence)
    return sentence


def _check_lengths(given: argparse.Namespace) -> None:
    """Check that the lengths of a dataset stand alone, with a dataset."""
    if OWN_LENGTHS not in (given.length or []):
        return
    if len(given.length) > 1:
        raise ConfigError(COMMAND, "--length", " ".join(map(str, given.length)), OWN_LENGTHS)
    if given.dataset is None:
        allowed = f"numbers without --dataset; or {OWN_LENGTHS} with --dataset NAME"
        raise ConfigError(COMMAND, "--length", OWN_LENGTHS, allowed)


def _say_progress(name: str) -> None:
    print(f"{name} ...", file=sys.stderr, flush=True)


# The model and the task ---------------------------------------------------------------------------


def _with_model(given: str, entries: dict, project: Path) -> tuple[dict[str, dict], str]:
    """The entries that no file has, and the model's name.

    Args:
        given: The name of an entry, a folder, or a repository on the hub.
        entries: The library; a derived model is put into it, too.
        project: The folder that the user works in.

    Raises:
        ValueError: There is no such model, or no entry can be derived from it.
    """
    name = named_model(given, entries["models"])
    if name in entries["models"]:
        return {}, name
    if "/" not in given and not (project / paths.expand(given)).is_dir():
        pick(entries["models"], name, "config/models.yaml", "model")
    from rankwise.models.derive import Choices, default_name, derive

    own = default_name(given)
    while own in entries["models"]:
        own = f"{own}_own"
    derived = derive(given, Choices(name=own, shapes_only=True), project)
    checked = check({own: derived.entry}, paths.SCHEMAS / "models.schema.yaml", given)
    entries["models"] = {**entries["models"], **checked}
    return {"models": checked}, own


def _dataset(given: argparse.Namespace, model: str, entries: dict, added: dict) -> str:
    """The dataset that is asked for, or one that stands for a task alone; it is put into `added`.

    Raises:
        ConfigError: There is no such dataset or task, both differ, or the model cannot do the task.
    """
    entry = entries["models"][model]
    if given.dataset is not None:
        dataset = pick(entries["datasets"], given.dataset, "config/datasets.yaml", "dataset")
        if given.task not in (None, dataset["task"]):
            allowed = f"{dataset['task']}, the task of the dataset {given.dataset}"
            raise ConfigError(COMMAND, "--task", given.task, allowed)
        return given.dataset
    able = [task for task in tasks.names() if tasks.head(entry, task)]
    task = given.task or tasks.usual(entry)
    if task not in able:
        raise ConfigError(COMMAND, "--task", task, able)
    length = min(LENGTH_TOKENS, entry["max_positions_tokens"])
    standing_for = {ASSUMED: _entry_of_task(task, length)}
    schema = paths.SCHEMAS / "datasets.schema.yaml"
    added["datasets"] = check(dataset_defaults.filled(standing_for), schema, COMMAND)
    return ASSUMED


def _entry_of_task(task: str, length: int) -> dict:
    """The entry of a dataset with a task, whose files nobody reads."""
    facts = tasks.facts(task)
    entry = {
        "task": task,
        "files": {"folder": ".", "format": "jsonl"},
        "splits": {"train": {"path": "train.jsonl"}, "test": {"path": "test.jsonl"}},
        "report_split": "test",
        "max_length_tokens": length,
    }
    if facts.labels == tasks.ANSWER:
        return entry
    entry["text"] = "text"
    if facts.labels != tasks.NO_LABEL:
        entry["label"] = "label"
    if facts.has_classes:
        entry["classes"] = CLASSES
    return entry


def _assumed(model: str, request: dict, given: argparse.Namespace, entries: dict) -> str:
    """The task, head and vocabulary that the numbers assume, and the options that change them."""
    entry, shapes = request["model"], request["shapes"]
    task, classes = shapes["task"], shapes["classes"]
    head = ", ".join(tasks.head(entry, task))
    of_classes = f" with {classes} classes" if classes else ""
    vocabulary = entry["architecture"].get("vocab_size")
    of_vocabulary = f", vocabulary {vocabulary:,}" if vocabulary else ""
    others = [name for name in tasks.names() if tasks.head(entry, name) and name != task]
    change = f"; others: --task {' | '.join(others)}" if others and not given.dataset else ""
    lines = [f"{model}: {task}{of_classes}, head {head}{of_vocabulary}{change}"]
    kept = _with_own_optimizer(given.methods, entries)
    if given.optimizer and kept:
        lines.append(f"with an optimizer of their own: {', '.join(kept)}")
    return "\n".join(lines)


# The grid -----------------------------------------------------------------------------------------


def _grid(given: argparse.Namespace, model: str, dataset: str, entries: dict) -> dict:
    """The command line as a grid of a study's profiles."""
    grid = {
        "models": [model],
        "datasets": [dataset],
        "methods": given.methods,
        "ranks": [given.rank],
        "measurements": ["fits"],
        "memory_gib": given.memory,
        "device": given.device,
        "checkpointing": given.checkpointing,
        "loss": given.loss,
        "accumulation_steps": given.accumulation,
    }
    grid |= {name: getattr(given, name) for name in SAME_NAME if getattr(given, name) is not None}
    if given.length == [OWN_LENGTHS]:
        grid["sequence_length_tokens"] = OWN_LENGTHS
    elif given.length:
        grid["lengths_tokens"] = given.length
    override = {name: _override(given, name, entries["methods"][name]) for name in given.methods}
    grid["override"] = {name: changes for name, changes in override.items() if changes}
    _check_targets_used(given, grid["override"])
    return grid


def _override(given: argparse.Namespace, name: str, entry: dict) -> dict:
    """The changes that the command line makes to the entry of one method.

    A dense storage replaces a dense one only, so that `--weights bf16` leaves QLoRA its 4 bits.
    """
    from rankwise.study.resolve import module_options

    changes: dict = {}
    if given.weights and (given.weights not in DENSE or entry["weights"] in DENSE):
        changes["weights"] = given.weights
    known = module_options("methods", entry["module"], f"{name}.module")
    if given.targets and "targets" in known:
        stands_alone = len(given.targets) == 1 and given.targets[0] in ALL
        changes["options"] = {"targets": given.targets[0] if stands_alone else given.targets}
    if given.optimizer and entry["optimizer"] == {"module": PLAIN_OPTIMIZER}:
        changes["optimizer"] = {"module": given.optimizer}
    return changes


def _check_targets_used(given: argparse.Namespace, override: dict[str, dict]) -> None:
    if given.targets and not any("options" in changes for changes in override.values()):
        allowed = f"nothing with {', '.join(given.methods)}: none of them has targets"
        raise ConfigError(COMMAND, "--targets", " ".join(given.targets), allowed)


def _with_own_optimizer(methods: list[str], entries: dict) -> list[str]:
    """The methods that `--optimizer` leaves as they are."""
    of_methods = entries["methods"]
    return [name for name in methods if of_methods[name]["optimizer"]["module"] != PLAIN_OPTIMIZER]
