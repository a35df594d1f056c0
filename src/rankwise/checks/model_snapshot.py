"""What the folder of a model says of itself, read without torch: config.json, tensors, tokenizer.

Standard library only: it is read on a login node, before the first job.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

from rankwise.core import settings
from rankwise.core.model_shapes import Shapes
from rankwise.core.safetensors_files import Tensor, tensors
from rankwise.core.snapshot_files import CONFIG, COPIED

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Snapshot(NamedTuple):
    """A model's folder.

    Attributes:
        folder: The folder.
        config: The content of config.json; empty if it is not there.
        tensors: The tensors of the weights by name; empty if they are not there.
    """

    folder: Path
    config: dict
    tensors: dict[str, Tensor]

    @property
    def shapes(self) -> Shapes:
        """The shapes of the tensors."""
        by_name = {name: tensor.shape for name, tensor in self.tensors.items()}
        return Shapes(by_name, str(self.folder))


def folder_here(entry: dict) -> Path | None:
    """The folder with the weights of a model's entry, or None if it is not on this machine.

    Args:
        entry: Of config/models.yaml. One from the hub is looked for in the hub's cache.
    """
    weights = entry.get("weights", {})
    if "files" in weights:
        path = Path(os.path.expandvars(weights["files"]))
    elif "hub" in weights:
        repository = f"models--{weights['hub'].replace('/', '--')}"
        path = _hub_cache() / repository / "snapshots" / weights["revision"]
    else:
        return None
    return path if path.is_dir() else None


def _hub_cache() -> Path:
    """The cache's folder, from the variables that huggingface_hub reads."""
    home = settings.read("HF_HOME") or "~/.cache/huggingface"
    return Path(settings.read("HF_HUB_CACHE") or f"{home}/hub").expanduser()


def read(folder: Path) -> tuple[Snapshot, list[str]]:
    """Read a model's folder.

    Args:
        folder: A model's folder, in Hugging Face's layout.

    Returns:
        What could be read, and a sentence for each JSON file that could not. Weights that cannot be
        read are left out without a word: `data/sources.py` says why.
    """
    problems = []
    for name in COPIED:
        if name.endswith(".json") and (folder / name).is_file():
            problems += _json_problems(folder / name)
    config = {}
    if (folder / CONFIG).is_file() and not problems:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    try:
        found = tensors(folder)
    except (OSError, ValueError):
        found = {}
    return Snapshot(folder, config, found), problems


def _json_problems(file: Path) -> list[str]:
    """Why transformers could not read a JSON file."""
    data = file.read_bytes()
    if data.startswith(BYTE_ORDER_MARK):
        return [
            f"{file}: got a byte order mark (BOM) before the text, allowed: JSON in UTF-8 without "
            "one; save it as UTF-8 without BOM"
        ]
    try:
        value = json.loads(data.decode("utf-8"))
    except ValueError as error:
        return [f"{file}: is not JSON in UTF-8 ({error}); copy or download it again"]
    if file.name == CONFIG and not isinstance(value, dict):
        return [f"{file}: got {value!r}, allowed: a JSON object"]
    return []
