"""Copy a pretrained model into results/inputs: from a pinned revision on the hub, or from a folder.

Weights come as safetensors only, because loading any other format can run code. For the same reason
no Python file of a repository is taken.
"""

import shutil
from pathlib import Path

from rankwise.core import provenance
from rankwise.core.paths import expand

# All that transformers reads of a model and its tokenizer; a model has some of them.
FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)


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
    source = _download(weights) if "hub" in weights else checked_folder(weights)
    copy_files(source, folder)
    return file_digests(folder)


def file_digests(folder: Path) -> dict:
    """`files`: the SHA-256 of each model and tokenizer file in `folder`."""
    present = sorted(file for file in folder.iterdir() if file.name in FILES)
    return {"files": {file.name: provenance.file_sha256(file) for file in present}}


def checked_folder(weights: dict) -> Path:
    """The folder that an entry's `weights.files` names, after a check of its weights.

    Raises:
        ValueError: The SHA-256 of the weights is not the one that the entry gives.
    """
    folder = expand(weights["files"])
    file = folder / "model.safetensors"
    sha256 = provenance.file_sha256(file)
    if sha256 != weights["sha256"]:
        raise ValueError(f"{file}: sha256 is {sha256}, allowed: {weights['sha256']}")
    return folder


def copy_files(source: Path, folder: Path) -> None:
    """Copy the model and tokenizer files from one folder into another, and nothing else.

    Args:
        source: Has some of `FILES`.
        folder: Made if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _download(weights: dict) -> Path:
    """The hub's cached copy of a repository's model files, downloaded if necessary."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - offline studies never load it

    patterns = list(FILES)
    snapshot = snapshot_download(
        weights["hub"], revision=weights["revision"], allow_patterns=patterns
    )
    return Path(snapshot)
