"""The page's table of splits: rows, classes, and how many texts have been trained on."""

from rankwise.data.overlap import MIN_CHARACTERS

NOTE = (
    "A text counts as also in train if train has it letter by letter, and as normalised if the two "
    "differ at most in case, punctuation, white space and the forms of characters. Of running "
    f"text, lines of more than {MIN_CHARACTERS} characters are compared. A model may know the "
    "answers to such texts by heart."
)


def splits(results: list[dict]) -> list[dict[str, str]]:
    """Rows of the table, from what the training runs of each dataset recorded."""
    data_by_dataset = {}
    for record in results:
        if "data" in record:
            data_by_dataset.setdefault(record["request"]["cell"]["dataset"], record["data"])
    rows = []
    for dataset, data in data_by_dataset.items():
        overlaps = {overlap["split"]: overlap for overlap in data["overlap"]}
        for split in data["splits"]:
            overlap = overlaps.get(split["split"])
            row = {
                "dataset": dataset,
                "split": split["split"],
                "rows": _rows(split, data.get("cut", [])),
                "classes": _classes(data, split["split"]),
                "also in train": _share(overlap, "exact"),
                "also in train, normalised": _share(overlap, "normalised"),
            }
            rows.append(row)
    return rows


def _rows(split: dict, cut: list[dict]) -> str:
    """`2,000; 3 without text dropped; 12 prompts and 0 answers cut`."""
    dropped = f"; {split['dropped_rows']:,} without text dropped" if split["dropped_rows"] else ""
    shortened = ""
    for row in cut:
        if row["split"] == split["split"] and (row["cut_prompt_rows"] or row["cut_answer_rows"]):
            prompts, answers = row["cut_prompt_rows"], row["cut_answer_rows"]
            shortened = f"; {prompts:,} prompts and {answers:,} answers cut"
    return f"{split['rows']:,}{dropped}{shortened}"


def _classes(data: dict, split: str) -> str:
    """`997 negative (0), 1,003 positive (1)`: with the labels of the files in brackets."""
    labels: dict[str, list[str]] = {}
    for row in data["labels"]:
        labels.setdefault(row["class"], []).append(row["label"])
    texts = []
    for row in data["classes"]:
        if row["split"] == split:
            written = [label for label in labels.get(row["class"], []) if label != row["class"]]
            meaning = f" ({', '.join(written)})" if written else ""
            texts.append(f"{row['rows']:,} {row['class']}{meaning}")
    return ", ".join(texts)


def _share(overlap: dict | None, kind: str) -> str:
    """`76 of 600 (12.7 %)`; nothing for train itself."""
    if overlap is None:
        return ""
    percent = 100 * overlap[f"{kind}_fraction"]
    return f"{overlap[f'{kind}_rows']:,} of {overlap['compared_rows']:,} ({percent:.3g}\u00a0%)"
