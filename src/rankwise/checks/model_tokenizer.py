"""Whether a model's folder has a tokenizer, and whether the model has an embedding for each token.

Standard library only.
"""

import json
from pathlib import Path

from rankwise.checks.model_snapshot import Snapshot
from rankwise.core.snapshot_files import TOKENIZER_CONFIG, has_tokenizer, no_tokenizer

FAST = "tokenizer.json"
SPECIAL_TOKENS, CHAT_TEMPLATE = "special_tokens_map.json", "chat_template.jinja"
GENERIC_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")  # without tokens of their own
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


def empty(where: str, folder: Path) -> list[str]:
    """A sentence if a tokenizer has no token: every text would be nothing.

    Args:
        where: File and name of the model's entry.
        folder: The model's folder.
    """
    vocabulary = _vocabulary(folder / FAST)
    if vocabulary is None or len(vocabulary):
        return []
    return [
        f"{where}: {folder / FAST}: got a vocabulary without tokens, allowed: the tokenizer of "
        "these weights; save it there with tokenizer.save_pretrained(FOLDER)"
    ]


def _vocabulary(file: Path) -> dict | list | None:
    """The vocabulary of a tokenizer.json; None if there is none, or its form is not known."""
    try:
        vocabulary = json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return vocabulary if isinstance(vocabulary, dict | list) else None


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


def without_answers(where: str, folder: Path, datasets: dict[str, dict]) -> list[str]:
    """What a tokenizer lacks for datasets with prompts and answers.

    Only what its files say for certain is looked at: transformers' classes of single models have
    special tokens of their own.

    Args:
        where: File and name of the model's entry.
        folder: The model's folder.
        datasets: Entries with prompts and answers, by name.
    """
    settings = _settings(folder)
    if settings is None:
        return []
    found = []
    if settings.get("tokenizer_class") in GENERIC_CLASSES and not settings.get("eos_token"):
        for name in list(datasets)[:1]:
            found.append(
                f"{where}: {folder / TOKENIZER_CONFIG}: got no eos_token, allowed: the token that "
                f"ends each answer of {name}; name one there"
            )
    for name, dataset in datasets.items():
        if dataset.get("chat") and not _has_chat_template(folder, settings):
            found.append(
                f"config/datasets.yaml: {name}.chat: got True, but {folder} has no chat template "
                f"(chat_template in {TOKENIZER_CONFIG}, or {CHAT_TEMPLATE}), allowed: false, or a "
                "model with one"
            )
    return found


def _settings(folder: Path) -> dict | None:
    """The content of tokenizer_config.json, with the tokens that stand in a file of their own."""
    settings: dict = {}
    for name in (SPECIAL_TOKENS, TOKENIZER_CONFIG):
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            if name == TOKENIZER_CONFIG:
                return None  # a sentence of its own says so, or the file is not there
            continue
        if isinstance(content, dict):
            settings |= {key: value for key, value in content.items() if value is not None}
    return settings


def _has_chat_template(folder: Path, settings: dict) -> bool:
    return bool(settings.get("chat_template")) or (folder / CHAT_TEMPLATE).is_file()


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
