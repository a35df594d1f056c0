"""What a reader must know of the rows that a dataset was prepared from: how many, of which classes,
and how much of a split the model has been trained on.
"""

from dataclasses import dataclass

from rankwise.core import tasks
from rankwise.data import overlap, splits, texts


@dataclass(frozen=True)
class Source:
    """The rows that a study uses of a dataset, as its source has them.

    Attributes:
        rows: Split -> rows with `text`, and `label` if the task has one: for a classification the
            index of the class.
        dropped_rows: Split -> how many rows without a text were left out (`missing_text: drop`).
        labels: What each label means, see `labels.mapping`; empty without classes.
    """

    rows: dict[str, list[dict]]
    dropped_rows: dict[str, int]
    labels: list[dict[str, str]]


def count(
    source: Source, rows_by_split: dict[str, list[dict]], dataset: dict
) -> dict[str, list[dict]]:
    """Count rows, classes and overlaps.

    Args:
        source: What was read.
        rows_by_split: The rows of `train`, `selection` and the reported split.
        dataset: A resolved dataset entry.

    Returns:
        Lists of rows. `splits`: rows of each split, and `dropped_rows` of the file that it comes
        from. `overlap`: how much of each split is in train, see `overlap.count`. `labels`: what
        each label means. `classes`: rows of each class and split. The last two are empty without
        classes.
    """
    split_rows, class_rows, overlaps = [], [], []
    is_running_text = dataset["task"] == texts.RUNNING_TEXT
    for split, rows in rows_by_split.items():
        dropped = source.dropped_rows["train" if split == "selection" else split]
        split_rows.append({"split": split, "rows": len(rows), "dropped_rows": dropped})
        if tasks.facts(dataset["task"]).labels == tasks.CLASS:
            for name, number in splits.class_counts(rows, dataset["classes"]).items():
                class_rows.append({"split": split, "class": name, "rows": number})
        if split != "train":
            overlaps.append(overlap.count(split, rows, rows_by_split["train"], is_running_text))
    return {
        "splits": split_rows,
        "overlap": overlaps,
        "labels": source.labels,
        "classes": class_rows,
    }
