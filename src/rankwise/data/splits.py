"""Which rows are trained on, and which are held out of train to select on.

Rows are drawn by a digest of their text: those with the smallest digests are taken. So a draw is
the same on every machine and Python, does not depend on the order of the rows, and takes copies of
a text together, also where they differ in case or punctuation. Since the number of rows is exact,
the copies of one text in each class may be divided. Every kept row stays in the order of the
source.
"""

import hashlib
import re
from collections import Counter
from fractions import Fraction

from rankwise.core import tasks
from rankwise.core.dataset_defaults import selection_rows
from rankwise.data.labels import MAX_SHOWN
from rankwise.data.texts import RUNNING_TEXT

SPLIT_SEED = 0
NO_WORD = re.compile(r"[^0-9A-Za-z\u0080-\U0010ffff]+")  # ASCII without letters and digits


def sample(rows: list[dict], dataset: dict, key: str = "train_rows") -> list[dict]:
    """The rows of a split that the entry asks for.

    Labelled rows are drawn in each class, so that classes keep their shares; other texts are drawn
    from all. Of running text the beginning is taken, because neighbouring lines belong together.

    Args:
        rows: All rows of the split.
        dataset: Gives `task` and the number of rows; all rows if it gives none.
        key: `train_rows`, or `report_rows` for the reported split.

    Raises:
        ValueError: There are fewer rows.
    """
    count = dataset.get(key)
    if count is None:
        return rows
    if count > len(rows):
        split = "train" if key == "train_rows" else dataset["report_split"]
        raise ValueError(f"{key}: got {count:,}, allowed: at most the {len(rows):,} of {split}")
    if dataset["task"] == RUNNING_TEXT:
        return rows[:count]
    drawn = _draw(rows, count, key, keep_one=False)
    return [row for index, row in enumerate(rows) if index in drawn]


def hold_out(rows: list[dict], dataset: dict) -> tuple[list[dict], list[dict]]:
    """Split the rows to train on into (train, selection).

    Labelled rows are drawn in each class, other texts from all. Of running text, the end is held
    out: random lines would leak their context.

    Args:
        rows: From `sample`.
        dataset: Gives `task` and `selection_rows`, the number of rows to hold out.

    Raises:
        ValueError: No row would be left to train on.
    """
    count = selection_rows(dataset, len(rows))
    if count >= len(rows):
        raise ValueError(
            f"selection_rows: got {count:,}, allowed: less than the {len(rows):,} rows of train"
        )
    if dataset["task"] == RUNNING_TEXT:
        return rows[:-count], rows[-count:]
    drawn = _draw(rows, count, "selection_rows", keep_one=True)
    train = [row for index, row in enumerate(rows) if index not in drawn]
    return train, [rows[index] for index in sorted(drawn)]


def shared_split(dataset: dict) -> str | None:
    """The reported split, if it is a `share` of train's file; None if it has a source of its own.

    Args:
        dataset: A dataset entry.
    """
    reported = dataset["report_split"]
    return reported if "share" in dataset.get("splits", {}).get(reported, {}) else None


def shared_rows(share: float, rows: int) -> int:
    """How many rows of a file a share of it is: at least one, so that a few rows can be shared.

    Args:
        share: A fraction of the rows.
        rows: All rows of the file.
    """
    return max(round(share * rows), 1)


def take_share(rows: list[dict], dataset: dict) -> tuple[list[dict], list[dict]]:
    """Divide the rows of one file into (train, reported split).

    Labelled rows are drawn in each class, other texts from all. Of running text, the end is taken:
    random lines would leak their context.

    Args:
        rows: All rows of the file.
        dataset: An entry whose reported split has a `share`, a fraction of the rows.

    Raises:
        ValueError: No row would be left to train on.
    """
    reported = dataset["report_split"]
    share = dataset["splits"][reported]["share"]
    count = shared_rows(share, len(rows))
    if count == len(rows):
        raise ValueError(
            f"splits.{reported}.share: got {share}, which is {count:,} of {len(rows):,} rows, "
            "allowed: a share that leaves a row to train on and one to report on"
        )
    if dataset["task"] == RUNNING_TEXT:
        return rows[:-count], rows[-count:]
    drawn = _draw(rows, count, "share", keep_one=True)
    train = [row for index, row in enumerate(rows) if index not in drawn]
    return train, [rows[index] for index in sorted(drawn)]


def _draw(rows: list[dict], count: int, purpose: str, keep_one: bool) -> set[int]:
    """Indices of `count` rows, drawn in each class.

    Args:
        rows: With `text`, and `label` if there are classes.
        count: At most the number of rows.
        purpose: Makes the draws of different purposes independent of each other.
        keep_one: Leave a row of each class undrawn, if that is possible.
    """
    by_class: dict[int | None, list[int]] = {}
    for index, row in enumerate(rows):
        label = row.get("label")
        # Numbers, and lists of several classes, are no classes to draw in.
        by_class.setdefault(label if isinstance(label, int) else None, []).append(index)
    classes = sorted(by_class, key=lambda label: -1 if label is None else label)
    sizes = [len(by_class[label]) for label in classes]
    drawn: set[int] = set()
    for label, size in zip(classes, allot(sizes, count, keep_one), strict=True):
        ordered = sorted(by_class[label], key=lambda index: _place(rows[index]["text"], purpose))
        drawn.update(ordered[:size])
    return drawn


def _place(text: str, purpose: str) -> tuple[bytes, str]:
    """The place of a text in the order of a draw; the text itself orders its near copies."""
    # ASCII alone is changed: what is known of other characters depends on Python's release.
    words = NO_WORD.sub(" ", text).strip()
    content = f"{SPLIT_SEED} {purpose} {words}".encode()
    return hashlib.sha256(content.lower()).digest(), text


def allot(sizes: list[int], count: int, keep_one: bool) -> list[int]:
    """How many rows to draw from each class, in proportion to its size.

    It is the method of the largest remainder: each class gets the whole part of its exact share,
    and the rows that are left go to the classes that lack most. Every class gets one row at least,
    where `count` suffices. With more than two classes, a larger `count` may give a class one row
    less (the Alabama paradox; Balinski & Young 1975).

    Args:
        sizes: Rows of each class, each at least 1.
        count: The rows to draw, at most all rows.
        keep_one: Leave one row of each class, where that is possible.

    Returns:
        Rows to draw of each class; their sum is `count`.
    """
    total = sum(sizes)
    most = [size - 1 for size in sizes] if keep_one else list(sizes)
    if sum(most) < count:
        most = list(sizes)
    least = [min(1, limit) for limit in most]
    if sum(least) > count:
        least = [0] * len(sizes)
    shares = [Fraction(count * size, total) for size in sizes]
    allotted = []
    for share, low, high in zip(shares, least, most, strict=True):
        allotted.append(min(max(int(share), low), high))
    # The first of equal classes wins, so the result depends on nothing else.
    while sum(allotted) < count:
        free = [index for index, limit in enumerate(most) if allotted[index] < limit]
        allotted[max(free, key=lambda index: shares[index] - allotted[index])] += 1
    while sum(allotted) > count:
        free = [index for index, limit in enumerate(least) if allotted[index] > limit]
        allotted[min(free, key=lambda index: shares[index] - allotted[index])] -= 1
    return allotted


# Classes ------------------------------------------------------------------------------------------

# Split -> what to do if it has too few classes. Any other split is the reported one.
REMEDIES = {
    "train": "give it rows of the other classes, or raise train_rows",
    "selection": "raise selection_rows, or give train more rows of the other classes",
}


def class_counts(rows: list[dict], classes: list[str]) -> dict[str, int]:
    """Class -> how many rows have it; 0 for a class without rows."""
    counts = Counter(row["label"] for row in rows)
    return {name: counts[index] for index, name in enumerate(classes)}


def problems(rows_by_split: dict[str, list[dict]], dataset: dict) -> list[str]:
    """Splits that nothing can be learnt from or measured on, a sentence each.

    Args:
        rows_by_split: The rows of `train`, `selection` and the reported split.
        dataset: A resolved entry.
    """
    found = []
    kind = tasks.facts(dataset["task"]).labels
    for split, rows in rows_by_split.items():
        remedy = REMEDIES.get(split, "report on a split with rows of several classes")
        if not rows:
            found.append(f"split {split}: got no rows, allowed: at least 1")
        elif kind == tasks.NUMBER and len({row["label"] for row in rows}) < 2:
            found.append(
                f"split {split}: got {len(rows):,} rows with the same number, allowed: at least "
                "2 different numbers"
            )
        elif kind == tasks.CLASS:
            counts = class_counts(rows, dataset["classes"])
            if sum(count > 0 for count in counts.values()) < 2:
                found.append(
                    f"split {split}: got rows of one class only ({_counted(counts)}), "
                    f"allowed: at least 2 classes; {remedy}"
                )
    if found or kind != tasks.CLASS:
        return found
    return _unlearnt(rows_by_split, dataset)


def _unlearnt(rows_by_split: dict[str, list[dict]], dataset: dict) -> list[str]:
    """Classes of the reported split that train has no row of."""
    reported = dataset["report_split"]
    trained = class_counts(rows_by_split["train"], dataset["classes"])
    needed = class_counts(rows_by_split[reported], dataset["classes"])
    return [
        f"split train: got no row of class {name!r}, which {reported} has {count:,} of; "
        f"allowed: rows of every class of {reported}; {REMEDIES['train']}"
        for name, count in needed.items()
        if count and not trained[name]
    ]


def _counted(counts: dict[str, int]) -> str:
    """`4 of 'a', 0 of 'b'`; of many classes, those with rows alone."""
    shown = counts
    if len(counts) > MAX_SHOWN:
        shown = {name: count for name, count in counts.items() if count}
    texts = [f"{count:,} of {name!r}" for name, count in shown.items()]
    if len(shown) < len(counts):
        texts.append(f"0 of the other {len(counts) - len(shown)}")
    return ", ".join(texts)
