"""The labels of a dataset: which cell of the label column means which class.

One reading holds for the whole column, in every split that is read: all labels are names of
`classes`, or all are numbers, of which the first class has `first_label`. Where both readings would
fit and differ, nothing is guessed: the entry's key `labels` decides.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from rankwise.data.record import shown

NAMES, NUMBERS = "names", "numbers"
READINGS = (NAMES, NUMBERS)
MAX_SENTENCES = 20  # of one kind of problem
MAX_SHOWN = 12  # classes in a sentence
WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII)
UNLABELLED = (-1, "-1")  # what GLUE writes where it keeps the labels to itself

# A label with its type: 1, 1.0, True and "1" are equal or alike, and mean different things.
Key = tuple[type, object]


@dataclass
class Column:
    """The distinct labels of a dataset, in the order in which they were found.

    Attributes:
        places: Label with its type -> `FILE: row N`, where it stands first.
        counts: Label with its type -> number of rows.
    """

    places: dict[Key, str] = field(default_factory=dict)
    counts: dict[Key, int] = field(default_factory=dict)

    def add(self, label: object, place: str) -> Key:
        """Count a label, and return what it is looked up by."""
        if isinstance(label, list | dict):  # such values cannot be looked up
            label = repr(label)
            key: Key = (list, label)
        elif label is None or label == "" or label != label:  # noqa: PLR0124 - NaN
            key = (type(None), None)
        else:
            key = (type(label), label)
        self.places.setdefault(key, place)
        self.counts[key] = self.counts.get(key, 0) + 1
        return key


def indices(dataset: dict, column: Column) -> dict[Key, int]:
    """The index of the class that each label means.

    Args:
        dataset: A resolved entry, with `classes`, `first_label` and perhaps `labels`.
        column: The labels of every split that is read.

    Raises:
        ValueError: A label means no class, or the column can be read in two ways.
    """
    found = problems(dataset, column)
    if found:
        raise ValueError(found[0])
    read_as = reading(dataset, column)
    return {key: _index(key, dataset, read_as) for key in column.places}


def reading(dataset: dict, column: Column) -> str:
    """How a column without problems is read: `names` or `numbers`."""
    return _fitting(dataset, column)[0]


def mapping(dataset: dict, column: Column) -> list[dict[str, str]]:
    """Rows of `label`, as the file has it, and `class`, in the order of the classes."""
    by_label = {}
    for (_, label), index in indices(dataset, column).items():
        by_label[str(label)] = index
    ordered = sorted(by_label, key=lambda label: (by_label[label], label))
    return [{"label": label, "class": dataset["classes"][by_label[label]]} for label in ordered]


def problems(dataset: dict, column: Column, whole: bool = True) -> list[str]:
    """Every reason why the labels cannot be read, a sentence each.

    Args:
        dataset: A resolved entry.
        column: Labels of its files.
        whole: Whether these are all labels. If not, another label may tell two readings apart.
    """
    found = list(_misfits(dataset, column))
    if len(found) > MAX_SENTENCES:
        more = len(found) - MAX_SENTENCES
        rest = f"{dataset['label']}: and {more:,} more labels that mean no class"
        return [*found[:MAX_SENTENCES], rest]
    if found:
        return found
    fitting = _fitting(dataset, column)
    if not fitting:
        return [_mixed(dataset, column)]
    if whole and len(fitting) > 1 and _differing(dataset, column):
        return [_ambiguous(dataset, column)]
    return []


# Two readings -------------------------------------------------------------------------------------


def _index(key: Key, dataset: dict, read_as: str) -> int | None:
    """The index of the class that a label means; None if it means none."""
    return _by_name(key, dataset) if read_as == NAMES else _by_number(key, dataset)


def _by_name(key: Key, dataset: dict) -> int | None:
    kind, label = key
    names = [str(label)]
    if kind is bool:
        names.append(str(label).lower())  # JSON's spelling
    elif kind is float and label.is_integer():
        names.append(str(int(label)))  # a typed column may hold whole numbers as floats
    for name in names:
        if name in dataset["classes"] and kind in (str, bool, int, float):
            return dataset["classes"].index(name)
    return None


def _by_number(key: Key, dataset: dict) -> int | None:
    kind, label = key
    number = None
    if kind is int or (kind is float and label.is_integer()):
        # A typed column (Parquet, JSON) may hold whole numbers as floats, such as 1.0.
        number = int(label)
    elif kind is str and WHOLE_NUMBER.fullmatch(label):
        number = int(label)
    if number is None:
        return None
    index = number - dataset["first_label"]
    return index if 0 <= index < len(dataset["classes"]) else None


def _allowed_readings(dataset: dict) -> tuple[str, ...]:
    return (dataset["labels"],) if "labels" in dataset else READINGS


def _fitting(dataset: dict, column: Column) -> list[str]:
    """The allowed readings under which every label means a class."""
    fitting = []
    for read_as in _allowed_readings(dataset):
        if all(_index(key, dataset, read_as) is not None for key in column.places):
            fitting.append(read_as)
    return fitting


def _differing(dataset: dict, column: Column) -> list[Key]:
    """The labels that mean another class as a name than as a number."""
    keys = column.places
    return [key for key in keys if _by_name(key, dataset) != _by_number(key, dataset)]


# Sentences ----------------------------------------------------------------------------------------


def _misfits(dataset: dict, column: Column) -> Iterator[str]:
    """A sentence for each distinct label that means no class under any allowed reading."""
    for key, place in column.places.items():
        readings = _allowed_readings(dataset)
        if all(_index(key, dataset, read_as) is None for read_as in readings):
            number = column.counts[key]
            also = f" ({number:,} rows in all)" if number > 1 else ""
            kind, label = key
            got = "nothing" if kind is type(None) else shown(label)
            if kind not in (type(None), list, str):
                got += f" ({kind.__name__})"
            remedy = _remedy(key)
            where = f"{place}: {dataset['label']}"
            yield f"{where}: got {got}{also}, allowed: {allowed(dataset)}{remedy}"


def _remedy(key: Key) -> str:
    """The remedy for a label that means no class, as far as its value suggests one."""
    kind, label = key
    if label in UNLABELLED:
        return "; rows labelled -1 have no labels (GLUE's test splits): report on another split"
    if kind is bool:
        return "; a boolean is a name: classes: ['false', 'true']"
    if kind is str and label.strip() != label:
        return "; remove the white space around it"
    if kind is str and re.fullmatch(r"-?[0-9]+\.0*", label):
        return "; write whole numbers without a point"
    return "; correct the row, or the entry's classes, first_label or labels"


def allowed(dataset: dict) -> str:
    """The labels that a file may have, in words."""
    first, classes = dataset["first_label"], dataset["classes"]
    numbers = _listed([str(first + index) for index in range(len(classes))])
    names = _listed([repr(name) for name in classes])
    texts = {NAMES: f"the names {names}", NUMBERS: f"the numbers {numbers}"}
    return " or ".join(texts[read_as] for read_as in _allowed_readings(dataset))


def _listed(texts: list[str]) -> str:
    more = len(texts) - MAX_SHOWN
    return ", ".join(texts) if more <= 0 else f"{', '.join(texts[:MAX_SHOWN])} and {more} more"


def _mixed(dataset: dict, column: Column) -> str:
    """Some labels are names alone, others numbers alone."""
    name = next(key for key in column.places if _by_number(key, dataset) is None)
    number = next(key for key in column.places if _by_name(key, dataset) is None)
    return (
        f"{column.places[number]}: {dataset['label']}: got {number[1]!r}, a number, but "
        f"{name[1]!r}, a name, in {column.places[name]}; allowed: {allowed(dataset)}, in all splits"
    )


def _ambiguous(dataset: dict, column: Column) -> str:
    """Every label is a name and a number, and the two mean different classes."""
    key = _differing(dataset, column)[0]
    by_name = dataset["classes"][_by_name(key, dataset)]
    by_number = dataset["classes"][_by_number(key, dataset)]
    labels = _listed([repr(label) for _, label in column.places])
    return (
        f"{column.places[key]}: {dataset['label']}: got {key[1]!r}, which is class {by_name!r} as "
        f"a name and {by_number!r} as a number, and every label ({labels}) can be both; allowed: "
        "an entry that says which, by labels: names or labels: numbers"
    )
