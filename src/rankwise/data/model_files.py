"""Copy a pretrained model into results/inputs: from a pinned revision on the hub, or from a folder.

Weights come as safetensors only, whole or in shards, because loading any other format can run code.
For the same reason no Python file of a repository is taken.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from rankwise.core import content, progress, provenance
from rankwise.core.paths import expand
from rankwise.core.safetensors_files import (
    INDEX,
    WEIGHTS,
    indexed_shards,
    tensors,
    weight_files,
    weights_sha256,
)
from rankwise.core.snapshot_files import (
    COPIED,
    copied_files,
    has_tokenizer,
    no_tokenizer,
    read_files,
)


def prepare_model(request: dict, folder: Path) -> dict:
    """Copy a model and its tokenizer into `folder`, in Hugging Face's layout.

    Args:
        request: The request of a model entry whose weights come from the hub or from files.
        folder: Made if it does not exist.

    Returns:
        `files`: the SHA-256 of each file.

    Raises:
        ValueError: The weights in the source folder are not those that the entry names, or cannot
            be read, or there is no tokenizer.
    """
    weights = request["model"]["weights"]
    progress.doing("downloading the model" if "hub" in weights else "checking the model's files")
    source = _download(weights) if "hub" in weights else checked_folder(weights)
    progress.doing("copying the model's files")
    if not has_tokenizer(source):
        raise ValueError(no_tokenizer(source))
    copies = copy_files(source, folder)
    tensors(folder)  # a file that was cut short is refused here, and not by every job that loads it
    return file_digests(copies)


def file_digests(files: Iterable[Path]) -> dict:
    """`files`: name -> SHA-256 of each file of a prepared model."""
    return {"files": {file.name: provenance.file_sha256(file) for file in files}}


def checked_folder(weights: dict) -> Path:
    """The folder that an entry's `weights.files` names, after a check of its files.

    Args:
        weights: With `sha256` of the weights (`weights_sha256`), and `contents`: the SHA-256 of
            every file that is copied, as it was when the workflow was planned.

    Raises:
        ValueError: The SHA-256 of the weights is not the one that the entry gives, or a file was
            added, changed or removed since the workflow was planned.
    """
    folder = expand(weights["files"])
    sha256 = weights_sha256(folder)
    if sha256 != weights["sha256"]:
        named = folder / weight_files(folder)[0]
        raise ValueError(f"{named}: sha256 is {sha256}, allowed: {weights['sha256']}")
    planned = weights["contents"] or {}
    for name in dict.fromkeys([*planned, *copied_files(folder)]):
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
        source: A model's folder.
        folder: Made if it does not exist. Files of a model or tokenizer in it are removed first.

    Returns:
        The copies.

    Raises:
        ValueError: `source` has no weights that can be read.
    """
    names = copied_files(source)
    folder.mkdir(parents=True, exist_ok=True)
    remove_model_files(folder)
    return [Path(shutil.copyfile(source / name, folder / name)) for name in names]


def remove_model_files(folder: Path) -> None:
    """Remove the files of a model that was prepared before: transformers would read them, too."""
    for file in read_files(folder):
        file.unlink()


def _download(weights: dict) -> Path:
    """The hub's cached copy of a repository's model files, downloaded if necessary.

    Raises:
        ValueError: The repository has no weights as safetensors at this revision.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - offline studies never load it

    def fetch(names: Iterable[str]) -> Path:
        revision = weights["revision"]
        return Path(
            snapshot_download(weights["hub"], revision=revision, allow_patterns=list(names))
        )

    folder = fetch((WEIGHTS, INDEX, *COPIED))
    try:
        if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():
            fetch(indexed_shards(folder))
        weight_files(folder)
    except ValueError as error:
        raise ValueError(f"{weights['hub']} at {weights['revision']}: {error}") from error
    return folder
