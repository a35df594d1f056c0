"""Facts of a task that a study needs before a job: its metrics, its labels, its model's class.

A task is one file of `rankwise.models.tasks`, or of the folder `tasks` beside a user's study. It
declares these facts as constants, which are read from source: importing it would import torch.
Standard library only.
"""

import functools
import os
from types import ModuleType
from typing import NamedTuple

from rankwise.core import own_files
from rankwise.core.errors import ConfigError
from rankwise.core.metrics import METRICS
from rankwise.core.paths import PACKAGE, module_file, own_folder

FOLDER = "tasks"
PARTS = ("encode", "Collate", "predictions", "scores")  # what the file of a task defines
# What the labels of a task are. An entry's column, or columns, of labels are read accordingly.
NO_LABEL, CLASS, NUMBER, CLASSES, TAGS = "none", "class", "number", "classes", "tags"
TEXT, ANSWER = "text", "answer"
LABELS = (NO_LABEL, CLASS, NUMBER, CLASSES, TAGS, TEXT, ANSWER)
WITH_CLASSES = (CLASS, CLASSES, TAGS)
# What a model is mostly trained for, the first one that it has a head for.
USUAL = ("language_modelling", "sequence_to_sequence", "classification")
PROBLEM_TYPES = {  # transformers' name of the loss that goes with labels
    CLASS: "single_label_classification",
    NUMBER: "regression",
    CLASSES: "multi_label_classification",
}


class Task(NamedTuple):
    """The facts of a task.

    Attributes:
        name: Of its file.
        auto_class: The class of transformers that builds its model.
        labels: NO_LABEL: the text itself is predicted. CLASS: one class a text. NUMBER: one number
            a text. CLASSES: any number of classes a text. TAGS: one class a word. TEXT: another
            text, which a decoder of its own writes. ANSWER: the text that follows the text, a
            prompt.
        metrics: Names of METRICS. Runs are compared by the first, unless a dataset's entry says
            another.
        new_head: Whether the head is new for a dataset, so that it trains under every method.
    """

    name: str
    auto_class: str
    labels: str
    metrics: tuple[str, ...]
    new_head: bool

    @property
    def has_classes(self) -> bool:
        """Whether an entry of a dataset must list classes."""
        return self.labels in WITH_CLASSES

    def config(self, classes: int) -> dict:
        """The settings of the task in a model's configuration.

        Args:
            classes: Of the dataset; 0 without classes.
        """
        if self.labels in (NO_LABEL, TEXT, ANSWER):
            return {}
        settings = {"num_labels": 1 if self.labels == NUMBER else classes}
        if self.labels in PROBLEM_TYPES:
            # Left open, most families choose the loss at the first batch. DeBERTa would first look
            # for labels below 0, which no prediction from shapes can follow.
            settings["problem_type"] = PROBLEM_TYPES[self.labels]
        return settings


def module(name: str) -> str:
    """The dotted name of a task's module."""
    return f"rankwise.models.{FOLDER}.{name}"


def names() -> list[str]:
    """The names of all tasks, packaged and the user's own, sorted."""
    found = set()
    for place in (PACKAGE / "models" / FOLDER, own_folder(FOLDER)):
        found |= {file.stem for file in place.glob("*.py") if file.stem != "__init__"}
    return sorted(found)


def load(name: str) -> ModuleType:
    """Import a task, packaged or the user's own.

    Raises:
        ValueError: The user's file cannot be imported; the message says why.
    """
    return own_files.load(FOLDER, name)


def head(entry: dict, name: str) -> list[str]:
    """The modules of a model that a task adds; none if the model cannot do the task.

    Args:
        entry: Of config/models.yaml.
        name: Of a task.
    """
    key = head_key(entry, name)
    return [] if key is None else entry["head"][key]


def head_key(entry: dict, name: str) -> str | None:
    """The key of a model's `head` that serves a task; None if the model cannot do the task.

    A task that the model's entry does not name has the head of one with the same class of
    transformers: a classification's serves a regression, and a task of the user's own.

    Args:
        entry: Of config/models.yaml.
        name: Of a task.
    """
    if name in entry["head"]:
        return name
    known = names()
    for other in entry["head"]:
        if other in known and facts(other).auto_class == facts(name).auto_class:
            return other
    return None


def usual(entry: dict) -> str:
    """The task that a model is mostly trained for, where nobody says it.

    It is language modelling for a causal language model, to write a text for an encoder-decoder,
    and classification for an encoder.

    Args:
        entry: Of config/models.yaml.
    """
    return next((task for task in USUAL if task in entry["head"]), next(iter(entry["head"])))


def facts(name: str) -> Task:
    """The facts of a task.

    Raises:
        ConfigError: A constant is missing or has a value that it may not have.
        KeyError: There is no such task.
    """
    return _facts(name, os.getcwd())  # noqa: PTH109 - every row of a dataset asks: a path is slow


@functools.cache
def _facts(name: str, _project: str) -> Task:
    """The facts of a task in a project, which may have tasks of its own."""
    file = module_file(module(name))
    if file is None:
        raise KeyError(name)
    constants, defined = own_files.constants(file)
    for part in PARTS:
        if part not in defined:
            raise ConfigError(
                own_files.shown(file), part, "nothing", f"a task has {', '.join(PARTS)}"
            )
    allowed = {
        "AUTO_CLASS": "the name of a class of transformers, such as AutoModelForCausalLM",
        "LABELS": f"one of {', '.join(LABELS)}",
        "METRICS": f"a tuple of some of {', '.join(METRICS)}",
        "NEW_HEAD": "True or False",
    }
    fits = {
        "AUTO_CLASS": lambda value: isinstance(value, str) and value.startswith("AutoModel"),
        "LABELS": lambda value: value in LABELS,
        "METRICS": lambda value: (
            isinstance(value, tuple) and bool(value) and all(one in METRICS for one in value)
        ),
        "NEW_HEAD": lambda value: isinstance(value, bool),
    }
    for key, text in allowed.items():
        if key not in constants or not fits[key](constants[key]):
            raise ConfigError(own_files.shown(file), key, constants.get(key, "nothing"), text)
    return Task(
        name,
        constants["AUTO_CLASS"],
        constants["LABELS"],
        constants["METRICS"],
        constants["NEW_HEAD"],
    )
