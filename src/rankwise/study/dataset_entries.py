"""The rules between the keys of a dataset's entry that a schema cannot say in one sentence."""

import re

from rankwise.core.config import ConfigError

FILE = "config/datasets.yaml"
SELECTION = "selection"  # the slice that is held out of train
RESERVED_SPLITS = ("train", SELECTION)  # they cannot be reported
SPLIT_NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)  # of a file that is not hidden


def check(name: str, entry: dict) -> None:
    """Check the splits of a dataset, and the labels of a classification.

    Args:
        name: The dataset's name.
        entry: A dataset entry with one source, with defaults of the schema.

    Raises:
        ConfigError: the reported split is not there, or is trained on or selected on; a split has
            the name of the slice that is held out, or no name for a file; there is no train, no
            label or no classes; or the text has the label in it.
    """
    if "generated" in entry:
        splits, key = entry["generated"]["rows"], f"{name}.generated.rows"
    else:
        splits, key = entry.get("splits", {}), f"{name}.splits"
    _check_reported_split(name, entry["report_split"], splits)
    _check_split_names(key, splits)
    if entry["task"] == "classification":
        _check_labels(name, entry)


def _check_reported_split(name: str, reported: str, splits: dict) -> None:
    allowed = ", ".join(split for split in splits if split not in RESERVED_SPLITS)
    if reported in RESERVED_SPLITS:
        allowed = f"{allowed or 'another split'}: runs train on train and select on selection"
    if reported in RESERVED_SPLITS or reported not in splits:
        allowed = allowed or "splits with a file each"
        raise ConfigError(FILE, f"{name}.report_split", reported, allowed)


def _check_split_names(key: str, splits: dict) -> None:
    if "train" not in splits:
        raise ConfigError(FILE, key, "no train", "train and a reported split")
    if SELECTION in splits:
        allowed = f"other names: {SELECTION} is the slice that is held out of train"
        raise ConfigError(FILE, key, SELECTION, allowed)
    for split in splits:
        if not SPLIT_NAME.fullmatch(split):
            raise ConfigError(FILE, key, split, "letters, digits, '_', '-' and '.'")


def _check_labels(name: str, entry: dict) -> None:
    for key in ("label", "classes"):
        if key not in entry:
            raise ConfigError(FILE, f"{name}.{key}", "nothing", f"the {key} of a classification")
    texts = entry["text"] if isinstance(entry["text"], list) else [entry["text"]]
    if entry["label"] in texts:
        allowed = "columns without the label: a model would read its answer"
        raise ConfigError(FILE, f"{name}.text", entry["label"], allowed)
