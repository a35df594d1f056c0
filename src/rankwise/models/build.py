"""Build a model: from its architecture (on any device, without weights) or from a prepared snapshot."""

from pathlib import Path

import psutil
import torch
import transformers
from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

GIB = 2**30
AUTO_CLASSES = {
    "classification": "AutoModelForSequenceClassification",
    "language_modelling": "AutoModelForCausalLM",
    "masked_language_modelling": "AutoModelForMaskedLM",
}


def configuration(entry: dict, classes: int) -> PretrainedConfig:
    """The transformers configuration of a models entry, with a head for `classes` labels (0: none)."""
    labels = {"num_labels": classes} if classes else {}
    return AutoConfig.for_model(entry["family"], **entry["architecture"], **labels)


def from_shapes(
    entry: dict, task: str, classes: int, device: str = "meta", attention: str = "sdpa"
) -> nn.Module:
    """A float32 model with the entry's shapes; on the meta device nothing is allocated."""
    auto = getattr(transformers, AUTO_CLASSES[task])
    with torch.device(device):
        return auto.from_config(configuration(entry, classes), attn_implementation=attention)


def from_snapshot(folder: Path, task: str, classes: int) -> nn.Module:
    """The pretrained float32 model in `folder`, its head (if new) drawn from torch's global generator."""
    transformers.logging.set_verbosity_error()  # that the head is new is known, and said here
    transformers.logging.disable_progress_bar()
    labels = {"num_labels": classes} if classes else {}
    auto = getattr(transformers, AUTO_CLASSES[task])
    model = auto.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, **labels
    )
    if model.config.pad_token_id is None:
        model.config.pad_token_id = pad_token_id(tokenizer(folder))
    return model


def check_room(entry: dict, task: str, classes: int, device: str) -> None:
    """Whether the fp32 weights of an entry have room on a device at all.

    Raises:
        ValueError: they have not; says how much there is.
    """
    needed = sum(p.numel() * 4 for p in from_shapes(entry, task, classes, "meta").parameters())
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available
    if needed > free:
        raise ValueError(
            f"config/models.yaml: {entry['family']} with {needed / 4e9:.1f} billion parameters: fp32 weights of "
            f"{needed / GIB:.1f} GiB, allowed: at most the {free / GIB:.1f} GiB that are free on {device}"
        )


def checkpoint(model: nn.Module) -> None:
    """Keep each layer's input only, and compute its activations again in backward (Chen et al. 2016, arXiv 1604.06174)."""
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.config.use_cache = False


def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The fast tokenizer in `folder`, with no truncation or padding of its own (some files carry both)."""
    loaded = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    loaded.backend_tokenizer.no_truncation()
    loaded.backend_tokenizer.no_padding()
    return loaded


def pad_token_id(loaded: PreTrainedTokenizerBase) -> int:
    """The padding token, or the end-of-sequence token where there is none (GPT-2, Llama): it is masked anyway."""
    return loaded.eos_token_id if loaded.pad_token_id is None else loaded.pad_token_id


def names(entry: dict, task: str) -> dict:
    """What a method may know: the task, the model's width, its modules by role, its head, and the head new for this task."""
    head = entry["head"].get(task, [])
    return {
        "task": task,
        "hidden_size": entry["hidden_size"],
        "modules": entry["modules"],
        "head": head,
        "new_head": head if task == "classification" else [],
    }
