"""The weights of a model's folder: which files hold them, their SHA-256, and their tensors' shapes.

Hugging Face's layout: one file `model.safetensors`, or shards that `model.safetensors.index.json`
names. The tensors' names, types and shapes stand in a JSON header at the start of each file, so no
weight is read.

Source: the format of safetensors, https://github.com/huggingface/safetensors#format.

Standard library only: the Snakefile imports this module.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import NamedTuple

from rankwise.core import content

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt")
LENGTH_BYTES = 8  # a file starts with the length of its header, little-endian
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
METADATA = "__metadata__"
BITS_BY_DTYPE = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
}


class Tensor(NamedTuple):
    """A tensor as its file stores it.

    Attributes:
        dtype: Its type in safetensors' words: F32, BF16, ...
        shape: Its sizes; empty for a scalar.
    """

    dtype: str
    shape: tuple[int, ...]


def weight_files(folder: Path) -> tuple[str, ...]:
    """The names of the files that hold a model's weights: the index first, then its shards.

    Args:
        folder: A model's folder. If it has one whole file and an index, the whole file counts, as
            for transformers.

    Raises:
        ValueError: There is no such file, the index is broken, or a shard is missing.
    """
    if (folder / WEIGHTS).is_file():
        return (WEIGHTS,)
    if not (folder / INDEX).is_file():
        raise ValueError(_no_weights(folder))
    shards = sorted(set(_shard_by_tensor(folder).values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise ValueError(
            f"{folder / INDEX}: weight_map: names {len(shards)} files, and of them "
            f"{', '.join(missing)} is not there; allowed: files of this folder; copy or download "
            "what is missing"
        )
    return (INDEX, *shards)


def tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of a model's weights, by name.

    Args:
        folder: A model's folder, with `model.safetensors` or with shards and their index.

    Raises:
        ValueError: A file is missing or broken, or a shard lacks a tensor that the index names.
    """
    if weight_files(folder) == (WEIGHTS,):
        return file_tensors(folder / WEIGHTS)
    shard_by_tensor = _shard_by_tensor(folder)
    by_shard = {shard: file_tensors(folder / shard) for shard in set(shard_by_tensor.values())}
    for name, shard in shard_by_tensor.items():
        if name not in by_shard[shard]:
            raise ValueError(
                f"{folder / INDEX}: weight_map: {name}: got {shard}, which has no such tensor; "
                "allowed: the shard that holds it; copy the index and the shards from one place"
            )
    return {name: by_shard[shard][name] for name, shard in shard_by_tensor.items()}


def weights_sha256(folder: Path, root: Path = Path()) -> str:
    """The SHA-256 that an entry's `weights.sha256` gives.

    Args:
        folder: A model's folder.
        root: The project's folder, where digests of large files are remembered.

    Returns:
        Of one file its SHA-256. Of shards that of the text that `combined_sha256` makes.

    Raises:
        ValueError: A file is missing, or the index is broken.
        OSError: A file cannot be read.
    """
    return combined_sha256(
        {name: content.sha256(folder / name, root) for name in weight_files(folder)}
    )


def combined_sha256(sha256_by_file: dict[str, str]) -> str:
    """One SHA-256 for all files of the weights.

    Args:
        sha256_by_file: Of the files that `weight_files` names.

    Returns:
        Of `model.safetensors` its own. Of shards and their index that of the lines
        "name sha256", sorted, each ended by a line feed.
    """
    if set(sha256_by_file) == {WEIGHTS}:
        return sha256_by_file[WEIGHTS]
    lines = sorted(f"{name} {sha256}\n" for name, sha256 in sha256_by_file.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _shard_by_tensor(folder: Path) -> dict[str, str]:
    """The index: name of a tensor -> name of the file in `folder` that holds it."""
    file = folder / INDEX
    allowed = "a JSON object that maps each tensor's name to the name of a file of this folder"
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: is not JSON ({error}); allowed: {allowed}") from error
    shard_by_tensor = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shard_by_tensor, dict) or not shard_by_tensor:
        raise ValueError(f"{file}: weight_map: got {shard_by_tensor!r}, allowed: {allowed}")
    for name, shard in shard_by_tensor.items():
        if not isinstance(shard, str) or not _is_plain_name(shard):
            raise ValueError(f"{file}: weight_map: {name}: got {shard!r}, allowed: {allowed}")
    return shard_by_tensor


def _is_plain_name(shard: str) -> bool:
    """Whether a shard lies in the folder itself, and is no pickle."""
    return Path(shard).name == shard and "\\" not in shard and shard.endswith(".safetensors")


def file_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file, by name.

    Raises:
        ValueError: The header is broken, or the file ends before its last tensor does.
    """
    header, data_bytes = _header(file)
    found = {}
    last = 0
    for name, facts in header.items():
        if name == METADATA:
            continue
        try:
            start, end = map(int, facts["data_offsets"])
            tensor = Tensor(str(facts["dtype"]), tuple(int(size) for size in facts["shape"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(_broken(file, f"tensor {name} is {facts!r}")) from error
        bits = BITS_BY_DTYPE.get(tensor.dtype)
        if bits and (end - start) * 8 != math.prod(tensor.shape) * bits:
            raise ValueError(_broken(file, f"tensor {name} has {end - start:,} bytes"))
        found[name] = tensor
        last = max(last, end)
    if last != data_bytes:
        raise ValueError(
            _broken(file, f"its tensors have {last:,} bytes, and the file has {data_bytes:,}")
        )
    return found


def _header(file: Path) -> tuple[dict, int]:
    """The header of a file, and the number of bytes that follow it."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
        if size < LENGTH_BYTES or length > min(MAX_HEADER_BYTES, size - LENGTH_BYTES):
            raise ValueError(_broken(file, f"{size:,} bytes cannot hold a header of {length:,}"))
        text = stream.read(length)
    try:
        header = json.loads(text)
    except ValueError as error:
        raise ValueError(_broken(file, f"its header is not JSON ({error})")) from error
    if not isinstance(header, dict):
        raise ValueError(_broken(file, "its header is no JSON object"))
    return header, size - LENGTH_BYTES - length


def _broken(file: Path, reason: str) -> str:
    """The sentence for a file that safetensors could not read. A Git LFS pointer is one, too."""
    return (
        f"{file}: {reason}; allowed: a whole safetensors file; copy or download it again (with "
        "git, `git lfs pull` fetches it)"
    )


def _no_weights(folder: Path) -> str:
    """Why a folder has no weights that are read, and what to do."""
    safetensors = sorted(file.name for file in folder.glob("*.safetensors"))
    if safetensors:
        return (
            f"{folder}: got {', '.join(safetensors[:3])} without {INDEX}, allowed: {WEIGHTS}, or "
            f"shards with {INDEX}; copy the index, too"
        )
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    if pickles:
        convert = f"transformers.{_class(folder)}.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        return (
            f"{folder}: got weights as pickle only ({', '.join(pickles[:3])}), which can run code "
            f"when it is loaded and is not read; allowed: {WEIGHTS}; if you trust its source, "
            f"convert it once in Python: {convert}"
        )
    return f"{folder}: got no {WEIGHTS} and no {INDEX}, allowed: a folder with one of them"


def _class(folder: Path) -> str:
    """The transformers class that a folder's config.json names, so that its head is kept."""
    try:
        return str(json.loads((folder / "config.json").read_text("utf-8-sig"))["architectures"][0])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return "AutoModel"
