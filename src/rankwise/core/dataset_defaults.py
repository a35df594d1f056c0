"""Keys that an entry of prompts and answers may leave out.

Such data are mostly one file of a user's own. An entry then needs its task, its folder and its
file. Standard library only.
"""

from rankwise.core import tasks

LENGTH_TOKENS = 512
SHARE = 0.1  # of the rows, reported on where there is one file
MAX_SELECTION_ROWS = 1000
PROMPT, ANSWER, MESSAGES = "prompt", "answer", "messages"


def filled(entries: object) -> object:
    """Entries of config/datasets.yaml, before their schema is checked, with these defaults.

    Args:
        entries: As YAML has them; what is no entry stays as it is.
    """
    if not isinstance(entries, dict):
        return entries
    return {
        name: _filled(entry) if isinstance(entry, dict) and _has_answers(entry) else entry
        for name, entry in entries.items()
    }


def selection_rows(dataset: dict, rows: int) -> int:
    """How many rows of train are held out to select on.

    Args:
        dataset: A resolved entry. Its `selection_rows` may be null: a tenth then.
        rows: Of train, the slice included.
    """
    if dataset["selection_rows"] is not None:
        return dataset["selection_rows"]
    return min(max(rows // 10, 1), MAX_SELECTION_ROWS)


def _has_answers(entry: dict) -> bool:
    task = entry.get("task")
    is_known = isinstance(task, str) and task in tasks.names()
    return is_known and tasks.facts(task).labels == tasks.ANSWER


def _filled(entry: dict) -> dict:
    defaults: dict = {"max_length_tokens": LENGTH_TOKENS, "selection_rows": None}
    if MESSAGES not in entry:
        defaults |= {PROMPT: PROMPT, ANSWER: ANSWER}
    return {**defaults, **entry, **_reported(entry)}


def _reported(entry: dict) -> dict:
    """`report_split`, and a share of train's file for it where there is no other split."""
    splits = entry.get("splits")
    if "report_split" in entry or not isinstance(splits, dict) or "train" not in splits:
        return {}
    others = [split for split in splits if split != "train"]
    if len(others) == 1:
        return {"report_split": others[0]}
    if others or not isinstance(splits["train"], dict):
        return {}  # the schema's sentence asks for `report_split`
    test = {**splits["train"], "share": SHARE}
    return {"splits": {**splits, "test": test}, "report_split": "test"}
