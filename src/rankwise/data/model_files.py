"""Bring a pretrained model into results/inputs: from the hub at a pinned revision, or from a checked folder."""

import shutil
from pathlib import Path

from rankwise.core import provenance
from rankwise.core.paths import expand

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
    """Fill `folder` with a model and tokenizer in Hugging Face's layout; the result names SHA-256 of each file."""
    weights = request["model"]["weights"]
    copy_files(_download(weights) if "hub" in weights else checked_folder(weights), folder)
    return file_digests(folder)


def file_digests(folder: Path) -> dict:
    """SHA-256 of each file of a model or tokenizer in `folder`."""
    present = sorted(file for file in folder.iterdir() if file.name in FILES)
    return {"files": {file.name: provenance.file_sha256(file) for file in present}}


def _download(weights: dict) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - offline studies never load it

    return Path(
        snapshot_download(weights["hub"], revision=weights["revision"], allow_patterns=list(FILES))
    )


def checked_folder(weights: dict) -> Path:
    """The folder of a `files` source, its weights' SHA-256 checked.

    Raises:
        ValueError: the weights are not the ones that the entry names.
    """
    folder = expand(weights["files"])
    found = provenance.file_sha256(folder / "model.safetensors")
    if found != weights["sha256"]:
        raise ValueError(
            f"{folder}/model.safetensors: sha256 is {found}, allowed: {weights['sha256']}"
        )
    return folder


def copy_files(source: Path, folder: Path) -> None:
    """Copy the files that a model and its tokenizer need, and no others."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
