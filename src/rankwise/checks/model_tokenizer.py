"""Whether a model's folder has a tokenizer, and whether the model has an embedding for each token.

Standard library only.
"""

import json
from pathlib import Path

from rankwise.checks.model_snapshot import Snapshot
from rankwise.core.snapshot_files import has_tokenizer, no_tokenizer

FAST = "tokenizer.json"
# Names of the table of token embeddings in transformers' models.
EMBEDDINGS = ("embed_tokens", "word_embeddings", "wte", "tok_embeddings", "embed_in", "shared")


def absent(where: str, folder: Path) -> list[str]:
    """A sentence if a model's folder has no tokenizer.

    Args:
        where: File and name of the model's entry.
        folder: The model's folder.
    """
    if has_tokenizer(folder):
        return []
    return [f"{where}.weights.files: {no_tokenizer(folder)}"]


def too_large(where: str, snapshot: Snapshot) -> list[str]:
    """A sentence if a tokenizer has more tokens than the model has embeddings.

    The model may have more: tables are padded, for speed.

    Args:
        where: File and name of the model's entry.
        snapshot: The model's folder.
    """
    file = snapshot.folder / FAST
    highest = highest_id(file)
    table, rows = _embeddings(snapshot)
    if highest is None or rows is None or highest < rows:
        return []
    return [
        f"{where}: {file}: got token ids up to {highest:,}, allowed: at most {rows - 1:,}, for "
        f"{table} has {rows:,} rows; use the tokenizer of these weights"
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
    for module, shape in snapshot.shapes.matrices.items():
        if module.rpartition(".")[2] in EMBEDDINGS:
            return f"{module}.weight", shape[0]
    if isinstance(snapshot.config.get("vocab_size"), int):
        return "the table of embeddings (vocab_size in config.json)", snapshot.config["vocab_size"]
    return None, None
