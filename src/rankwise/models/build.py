"""Build a model from its architecture, without weights, or from a prepared snapshot."""

from collections.abc import Collection
from pathlib import Path

import psutil
import torch
import transformers
from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from rankwise.core import tasks
from rankwise.models import check

GIB = 2**30
ANY_TOKEN = 0  # shapes do not depend on it


# Names of attention -> those of transformers, where they differ.
ATTENTION = {"flash": "flash_attention_2"}


def configuration(entry: dict, task: str, classes: int) -> PretrainedConfig:
    """The transformers configuration of a model.

    Args:
        entry: of config/models.yaml.
        task: the name of a task.
        classes: number of labels of the head; 0 for a task without labels.
    """
    labels = tasks.facts(task).config(classes)
    return AutoConfig.for_model(entry["family"], **entry["architecture"], **labels)


def from_shapes(
    entry: dict, task: str, classes: int, device: str = "meta", attention: str | None = None
) -> nn.Module:
    """A float32 model with the entry's shapes and random weights; the meta device holds none.

    Args:
        entry: of config/models.yaml.
        task: the name of a task.
        classes: number of labels; 0 for a task without labels.
        device: where the model is built.
        attention: transformers' name of the attention's implementation. If not given, transformers
            chooses as it does for a snapshot: sdpa, or eager for families without it, such as
            DeBERTa.
    """
    auto_class = getattr(transformers, tasks.facts(task).auto_class)
    config = configuration(entry, task, classes)
    with torch.device(device):
        model = auto_class.from_config(
            config, attn_implementation=attention, trust_remote_code=False
        )
    if entry["architecture"].get("tie_word_embeddings") is False:
        _untie_head(model)
    if model.config.pad_token_id is None:
        # A decoder's classification asks for one; Llama's and GPT-NeoX's configurations have none.
        model.config.pad_token_id = ANY_TOKEN
    if model.config.is_encoder_decoder and not check.has_decoder_start(model.config):
        # T5 has none by default.
        model.config.decoder_start_token_id = ANY_TOKEN
    return model


def _untie_head(model: nn.Module) -> None:
    """Give a model a head of its own, where transformers has tied it all the same.

    T5's configuration takes `tie_word_embeddings: false` to mean that outputs are not scaled, and
    says that the head is tied. But weights with a head of its own, such as Flan-T5's, keep it.
    """
    head = model.get_output_embeddings()
    if head is not None and head.weight is model.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone())


def checked_from_shapes(
    entry: dict, task: str, classes: int, device: str = "meta", attention: str | None = None
) -> nn.Module:
    """The model of `from_shapes`, after a check that the entry describes it.

    Raises:
        ValueError: the entry's roles, head or sizes are not those of the model.
    """
    model = from_shapes(entry, task, classes, device, attention)
    check.built(model, entry, task)
    return model


def from_snapshot(
    folder: Path,
    task: str,
    classes: int,
    new_head: Collection[str] = (),
    attention: str | None = None,
) -> nn.Module:
    """The pretrained float32 model in `folder`; a new head is drawn from torch's global generator.

    Args:
        folder: a prepared snapshot, with its tokenizer.
        task: the name of a task.
        classes: number of labels; 0 for a task without labels.
        new_head: last names of the modules that may be new; everything else must be in `folder`.
        attention: `sdpa`, `eager` or `flash`; transformers chooses if it is not given.

    Raises:
        ValueError: weights are missing, left over or of another shape, or the new head is not new.
    """
    transformers.logging.set_verbosity_error()  # `check.loaded` says what it would warn of
    transformers.logging.disable_progress_bar()
    labels = tasks.facts(task).config(classes)
    auto_class = getattr(transformers, tasks.facts(task).auto_class)
    model, loading = auto_class.from_pretrained(
        folder,
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        attn_implementation=ATTENTION.get(attention, attention),
        ignore_mismatched_sizes=True,  # so that our sentence names them
        **labels,
    )
    check.loaded(model, loading, folder, new_head)
    # A decoder classifies by its last token that is no padding, and batches are padded by the
    # tokenizer, which may use another token than config.json names.
    model.config.pad_token_id = _padding(tokenizer(folder))
    check.starts_its_decoder(model, folder)
    return model


def check_room(entry: dict, task: str, classes: int, device: str) -> None:
    """Check that a device has room for the fp32 weights of a model.

    Args:
        entry: of config/models.yaml.
        task: the name of a task.
        classes: number of labels; 0 for a task without labels.
        device: cpu or cuda.

    Raises:
        ValueError: it has not; the message says how much memory is free.
    """
    needed = sum(p.numel() * 4 for p in from_shapes(entry, task, classes, "meta").parameters())
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available
    if needed > free:
        billions = needed / 4e9
        raise ValueError(
            f"config/models.yaml: {entry['family']} with {billions:.1f} billion parameters: "
            f"fp32 weights of {needed / GIB:.1f} GiB, allowed: at most the {free / GIB:.1f} GiB "
            f"that are free on {device}"
        )


def checkpoint(model: nn.Module) -> None:
    """Switch activation checkpointing on.

    Each layer keeps its input only, and computes its activations again in backward.

    References:
        Chen et al. 2016, arXiv 1604.06174.
    """
    # transformers up to 5.17 at least has the second name alone; later the first one replaces it.
    enable = getattr(model, "activation_checkpointing_enable", None)
    if enable is None:
        enable = model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    model.config.use_cache = False


def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The fast tokenizer in `folder`, without the truncation and padding that some files set.

    Raises:
        ValueError: there is no tokenizer, or transformers cannot make a fast one of it.
    """
    try:
        loaded = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # each kind of file fails in its own way
        raise ValueError(check.no_fast_tokenizer(folder, str(error))) from error
    if not loaded.is_fast:
        raise ValueError(check.no_fast_tokenizer(folder, f"got {type(loaded).__name__}"))
    check.has_vocabulary(loaded, folder)
    loaded.backend_tokenizer.no_truncation()
    loaded.backend_tokenizer.no_padding()
    return loaded


def pad_token_id(loaded: PreTrainedTokenizerBase) -> int:
    """The id of the padding token.

    A tokenizer without one (GPT-2, Llama) pads with the end-of-sequence token; padding is masked
    anyway.

    Raises:
        ValueError: it has neither.
    """
    found = _padding(loaded)
    if found is None:
        raise ValueError(
            f"{loaded.name_or_path}: the tokenizer has neither a padding nor an end-of-sequence "
            "token, allowed: one of them, which fills shorter texts of a batch; set pad_token in "
            "tokenizer_config.json"
        )
    return found


def _padding(loaded: PreTrainedTokenizerBase) -> int | None:
    return loaded.eos_token_id if loaded.pad_token_id is None else loaded.pad_token_id


def names(entry: dict, task: str) -> dict:
    """The facts of a model that a method may use.

    Args:
        entry: of config/models.yaml.
        task: the name of a task.

    Returns:
        `task`; `hidden_size`, the model's width; `modules` by role; `head`, the names of its
        modules; `new_head`, the same if the head is new for this task and must train, else nothing.
    """
    head = tasks.head(entry, task)
    return {
        "task": task,
        "hidden_size": entry["hidden_size"],
        "modules": entry["modules"],
        "head": head,
        "new_head": head if tasks.facts(task).new_head else [],
    }
