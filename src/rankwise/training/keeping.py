"""Keep the weights of a training run as files beside its result.

A run ends with the state that its metrics belong to (the best or the last one). `keep` writes that
state into a folder that is named like the request's `keep`:

    adapter/  what training changed. Where peft can hold it (`Method.held_by_peft`), in peft's own
              files, which `peft.PeftModel.from_pretrained(base, folder)` opens. Otherwise every
              tensor that differs from the base, in trained.safetensors.
    merged/   one model of the base's own modules, which transformers opens.

rankwise.json says how `training/kept.py` opens the folder. The configuration, the tokenizer and
the base's licence, if it is there, are in both folders. Weights are in safetensors only.

A start such as PiSSA (Meng et al. 2024, arXiv 2404.02948) moves a part s B0 A0 of W into the
adapter. An adapter to W itself then has twice the rank: W' = (W - s B0 A0) + s B A = W + s [B, -B0]
[A; A0]. The two factors of the moved part come from an SVD of what was taken off W.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rankwise.core import progress, provenance, result
from rankwise.core.files import sync_path
from rankwise.core.snapshot_files import CONFIG, COPIED
from rankwise.methods.parts.base import Method
from rankwise.models import build, storage
from rankwise.optim.parts.waiting import trains
from rankwise.training.merging import write_merged

ADAPTER, MERGED, NONE = "adapter", "merged", "none"
RECORD = "rankwise.json"
PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
OWN_WEIGHTS = "trained.safetensors"
# What two factors may leave of the part that a start took off W, relative to that part.
LARGEST_REST = 1e-3


def keep(
    request: dict,
    folder: Path,
    method: Method,
    model: nn.Module,
    base_folder: Path,
) -> dict:
    """Write what the request says is kept. It may use the model up.

    Args:
        request: Of the training run, with the method's settings as they were used.
        folder: The folder of the run's result.
        method: The run's method.
        model: The adapted model in the state to keep.
        base_folder: The prepared base, with its tokenizer.

    Returns:
        `weights`, for the result: the `kind`, the SHA-256 of each of the `files` by its path
        relative to `folder`, and their `bytes`; nothing if the request keeps none.

    Raises:
        OSError: The disk is full, or cannot be written.
        ValueError: The method has nothing of this kind.
    """
    kind = request["keep"]
    if kind == NONE:
        return {}
    progress.doing(f"writing the weights to keep: {kind}")
    model.eval()
    target = folder / kind
    shutil.rmtree(target, ignore_errors=True)  # of a result that is made again
    target.mkdir(parents=True)
    with _as_os_errors():
        if kind == MERGED:
            write_merged(method, model, target)
            record = {"format": MERGED}
        else:
            record = _write_adapter(request, target, method, model, base_folder)
        copy_tokenizer(base_folder, target)
        result.write_json(target / RECORD, {**_facts(request), **record})
    files = sorted(file for file in target.rglob("*") if file.is_file())
    for file in files:
        file.chmod(0o644)  # safetensors lets nobody else read its files
        sync_path(file)
    sync_path(target)
    names = {file.relative_to(folder).as_posix(): provenance.file_sha256(file) for file in files}
    size = sum(file.stat().st_size for file in files)
    return {"weights": {"kind": kind, "files": names, "bytes": size}}


def _facts(request: dict) -> dict:
    """What a loader needs to build the model again."""
    dataset = request["dataset"]
    return {
        "base": base_name(request),
        "task": dataset["task"],
        "classes": len(dataset.get("classes", [])),
        "method": request["method"],
        "names": build.names(request["model"], dataset["task"]),
        "precision": request["schedule"]["precision"],
    }


def base_name(request: dict) -> str:
    """The base's hub id, or the name of its entry where it has none; never a path."""
    return request["model"].get("weights", {}).get("hub", request["cell"]["model"])


def copy_tokenizer(base_folder: Path, target: Path) -> None:
    """Copy the tokenizer, the base's settings for generation and its licence, as they are.

    Saving a loaded tokenizer would add paths of this machine and the truncation of its last text.
    """
    for name in COPIED:
        if name != CONFIG and (base_folder / name).is_file():
            shutil.copyfile(base_folder / name, target / name)


# An adapter ---------------------------------------------------------------------------------------


def _write_adapter(
    request: dict, target: Path, method: Method, model: nn.Module, base_folder: Path
) -> dict:
    names = build.names(request["model"], request["dataset"]["task"])
    if isinstance(model, PeftModel) and method.held_by_peft(names):
        _write_peft(request, target, method, model, base_folder)
        _write_config(model.get_base_model(), target)
        return {"format": "peft"}
    fresh = _fresh_base(request, base_folder)
    save_file(changed_tensors(model, fresh), target / OWN_WEIGHTS, metadata={"format": "pt"})
    _write_config(model, target)
    return {"format": "parameters"}


def _write_config(base: PreTrainedModel, target: Path) -> None:
    """Write the configuration of the model that an adapter is put on."""
    base.config.architectures = [type(base).__name__]
    base.config.save_pretrained(target)


def _fresh_base(request: dict, base_folder: Path) -> nn.Module:
    """The base as it was prepared."""
    dataset = request["dataset"]
    task, classes = dataset["task"], len(dataset.get("classes", []))
    new_head = build.names(request["model"], task)["new_head"]
    return build.from_snapshot(base_folder, task, classes, new_head)


def changed_tensors(model: nn.Module, base: nn.Module) -> dict[str, Tensor]:
    """What an adapted model has and its base has not, by name, on the CPU.

    These are the trained parameters, what a method has added or replaced, and the buffers that
    training has changed. A tensor with two names (a tied head) is there once.

    Args:
        model: The adapted model.
        base: The base as it was prepared.
    """
    in_base = base.state_dict()
    trained = {name for name, param in model.named_parameters() if trains(param)}
    tensors: dict[str, Tensor] = {}
    places = set()
    for name, value in storage.learnt(model).items():
        there = in_base.get(name)
        is_same = (
            name not in trained
            and there is not None
            and there.shape == value.shape
            and torch.equal(there.to(value.dtype), value.cpu())
        )
        place = (value.data_ptr(), value.shape)
        if not is_same and place not in places:
            places.add(place)
            tensors[name] = value.detach().cpu().clone().contiguous()
    return tensors


def _write_peft(
    request: dict, target: Path, method: Method, model: PeftModel, base_folder: Path
) -> None:
    """Write the files that peft reads, without a path of this machine in them."""
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    # A mask of a pruning method is no weight, and peft has no place for it.
    kept = {
        name: value.detach().cpu().clone().contiguous()
        for name, value in tensors.items()
        if value.dtype != torch.bool
    }
    base_model = model.get_base_model()
    config = model.active_peft_config.to_dict()
    config["auto_mapping"] = {
        "base_model_class": type(base_model).__name__,
        "parent_library": type(base_model).__module__,
    }
    config |= {"base_model_name_or_path": base_name(request), "inference_mode": True}
    if getattr(method, "init", None) in method.CHANGES_BASE:
        config |= _relative_to(_fresh_base(request, base_folder), model, kept)
    if "init_lora_weights" in config:
        config["init_lora_weights"] = True  # another start would change the base that it is put on
    sorted_sets = {
        key: sorted(value) if isinstance(value, set) else value for key, value in config.items()
    }
    result.write_json(target / PEFT_CONFIG, sorted_sets)
    save_file(kept, target / PEFT_WEIGHTS, metadata={"format": "pt"})


@torch.no_grad()
def _relative_to(base: nn.Module, model: PeftModel, tensors: dict[str, Tensor]) -> dict:
    """Make a LoRA of twice the rank, to the prepared base, of one whose start changed the base.

    Args:
        base: The base as it was prepared.
        model: The adapted model.
        tensors: The adapter's tensors; A and B are replaced.

    Returns:
        The fields of LoRA's configuration that change.
    """
    rank, scale = model.active_peft_config.r, None
    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        scale = layer.scaling["default"]
        inner = name.removeprefix("base_model.model.")
        moved = _rows_first(base.get_submodule(inner)) - _rows_first(layer.get_base_layer())
        b0, a0 = _factors(moved, rank)
        a, b = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        tensors[a] = torch.cat([tensors[a], a0])
        tensors[b] = torch.cat([tensors[b], -b0 / scale], dim=1)
    return {"r": 2 * rank, "lora_alpha": scale * 2 * rank, "use_rslora": False}


def _rows_first(layer: nn.Module) -> Tensor:  # (m, n)
    """A matrix as (out, in) on the CPU; GPT-2's Conv1D keeps it as (in, out)."""
    weight = layer.weight.detach().cpu().float()
    return weight.mT if isinstance(layer, Conv1D) else weight


def _factors(moved: Tensor, rank: int) -> tuple[Tensor, Tensor]:  # (m, n) -> (m, r), (r, n)
    """Two factors of a matrix that has rank r up to rounding.

    Raises:
        ValueError: The matrix has a higher rank.
    """
    u, s, v = torch.svd_lowrank(moved, q=min(rank + 8, *moved.shape), niter=4)
    b0, a0 = u[:, :rank] * s[:rank], v[:, :rank].mT
    rest = (moved - b0 @ a0).norm()
    if rest > LARGEST_REST * moved.norm():
        raise ValueError(
            f"keep: got adapter of rank {rank}, allowed: merged or none, because what the start "
            "took off a matrix has a higher rank"
        )
    return b0.contiguous(), a0.contiguous()


# Files --------------------------------------------------------------------------------------------


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Let a full disk be an OSError also where safetensors writes.

    Raises:
        OSError: With the number that safetensors has in its message only.
    """
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code)) from error
