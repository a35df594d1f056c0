"""Copy a pretrained model into results/inputs: from a pinned revision on the hub, or from a folder.

Weights come as safetensors only, because loading any other format can run code. For the same reason
no Python file of a repository is taken.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from rankwise.core import content, progress, provenance
from rankwise.core.input_files import MODEL_FILES, WEIGHTS
from rankwise.core.paths import expand


def prepare_model(request: dict, folder: Path) -> dict:
    """Copy a model and its tokenizer into `folder`, in Hugging Face's layout.

    Args:
        request: The request of a model entry whose weights come from the hub or from files.
        folder: Made if it does not exist.

    Returns:
        `files`: the SHA-256 of each file.

    Raises:
        ValueError: The weights in the source folder are not those that the entry names.
    """
    weights = request["model"]["weights"]
    progress.doing("downloading the model" if "hub" in weights else "checking the model's files")
    source = _download(weights) if "hub" in weights else checked_folder(weights)
    progress.doing("copying the model's files")
    return file_digests(copy_files(source, folder))


def file_digests(files: Iterable[Path]) -> dict:
    """`files`: name -> SHA-256 of each file of a prepared model."""
    return {"files": {file.name: provenance.file_sha256(file) for file in files}}


def checked_folder(weights: dict) -> Path:
    """The folder that an entry's `weights.files` names, after a check of its files.

    Args:
        weights: With `sha256` of the weights, and `contents`: the SHA-256 of every file of
            `MODEL_FILES` in the folder when the workflow was planned.

    Raises:
        ValueError: The SHA-256 of the weights is not the one that the entry gives, or a file was
            added, changed or removed since the workflow was planned.
    """
    folder = expand(weights["files"])
    sha256 = content.sha256(folder / WEIGHTS)
    if sha256 != weights["sha256"]:
        raise ValueError(f"{folder / WEIGHTS}: sha256 is {sha256}, allowed: {weights['sha256']}")
    planned = weights["contents"] or {}
    for name in MODEL_FILES:
        file = folder / name
        found = content.sha256(file) if file.is_file() else None
        if found != planned.get(name):
            raise ValueError(
                f"{file}: sha256 is {found}, allowed: {planned.get(name)}, as when the workflow "
                "was planned; run snakemake again"
            )
    return folder


def copy_files(source: Path, folder: Path) -> list[Path]:
    """Copy the model and tokenizer files from one folder into another, and nothing else.

    Args:
        source: Has some of `MODEL_FILES`.
        folder: Made if it does not exist. Model files in it that `source` lacks are removed.

    Returns:
        The copies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_model_files(folder)
    names = [name for name in MODEL_FILES if (source / name).is_file()]
    return [Path(shutil.copyfile(source / name, folder / name)) for name in names]


def remove_model_files(folder: Path) -> None:
    """Remove the files of a model that was prepared before: transformers would read them, too."""
    for name in MODEL_FILES:
        (folder / name).unlink(missing_ok=True)


def _download(weights: dict) -> Path:
    """The hub's cached copy of a repository's model files, downloaded if necessary."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - offline studies never load it

    patterns = list(MODEL_FILES)
    snapshot = snapshot_download(
        weights["hub"], revision=weights["revision"], allow_patterns=patterns
    )
    return Path(snapshot)
