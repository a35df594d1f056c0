"""Whether a model's folder has a tokenizer, and whether the model has an embedding for each token.

Standard library only.
"""

import json
from pathlib import Path

from rankwise.checks.model_snapshot import Snapshot
from rankwise.core.snapshot_files import VOCABULARIES

FAST = "tokenizer.json"
# Names of the table of token embeddings in transformers' models.
EMBEDDINGS = ("embed_tokens", "word_embeddings", "wte", "tok_embeddings", "embed_in", "shared")
MOST_SHOWN = 8  # names in a sentence


def problems(where: str, snapshot: Snapshot) -> list[str]:
    """What is wrong with the tokenizer in a model's folder, a sentence each.

    Args:
        where: File and name of the model's entry.
        snapshot: The model's folder.
    """
    folder = snapshot.folder
    if not any((folder / name).is_file() for name in VOCABULARIES):
        common = ", ".join(VOCABULARIES[:MOST_SHOWN])
        return [
            f"{where}: {folder} has no tokenizer, allowed: a folder with the tokenizer's files, "
            f"one of {common}, ...; save it there with tokenizer.save_pretrained(FOLDER)"
        ]
    highest = highest_id(folder / FAST)
    table, rows = _embeddings(snapshot)
    if highest is None or rows is None or highest < rows:
        return []
    return [
        f"{where}: {folder / FAST}: got token ids up to {highest:,}, allowed: at most "
        f"{rows - 1:,}, for {table} has {rows:,} rows; use the tokenizer of these weights"
    ]


def highest_id(file: Path) -> int | None:
    """The highest token id of a tokenizer.json; None if there is none, or its form is not known."""
    try:
        tokenizer = json.loads(file.read_text(encoding="utf-8"))
        vocabulary = tokenizer["model"]["vocab"]
        # WordPiece, WordLevel and BPE: token -> id. Unigram: pairs of token and score, by id.
        is_by_token = isinstance(vocabulary, dict)
        ids = list(vocabulary.values() if is_by_token else range(len(vocabulary)))
        return max(ids + [token["id"] for token in tokenizer.get("added_tokens") or []])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _embeddings(snapshot: Snapshot) -> tuple[str | None, int | None]:
    """The table of token embeddings: its name and its rows, or config.json's vocab_size."""
    for module, shape in snapshot.matrices().items():
        if module.rpartition(".")[2] in EMBEDDINGS:
            return f"{module}.weight", shape[0]
    if isinstance(snapshot.config.get("vocab_size"), int):
        return "the table of embeddings (vocab_size in config.json)", snapshot.config["vocab_size"]
    return None, None
