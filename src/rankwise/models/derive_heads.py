"""The head of each task, and whether a model's weights are those of its configuration.

The trees of modules with and without a task are compared. Which weights a tree would take is asked
of transformers itself, with tensors of the stored shapes and without content: it knows what its
families rename, tie and leave out.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import PretrainedConfig

from rankwise.core.safetensors_files import Tensor

# A task that is not here has the head of one with the same class.
TASKS = {
    "classification": "AutoModelForSequenceClassification",
    "language_modelling": "AutoModelForCausalLM",
    "masked_language_modelling": "AutoModelForMaskedLM",
    "token_classification": "AutoModelForTokenClassification",
}
# Of an encoder-decoder; its classes for other tasks use one stack, or need the end of a text twice.
ENCODER_DECODER_TASKS = {"sequence_to_sequence": "AutoModelForSeq2SeqLM"}
# Heads that a snapshot must have; those of other tasks are new, and train.
PRETRAINED = ("language_modelling", "masked_language_modelling", "sequence_to_sequence")
# Families with a class for language modelling whose tokens see those behind them, unless the
# configuration says is_decoder; other such families have a class that fills masks.
TWO_SIDED = ("xlnet", "bert-generation")
SHOWN = 3  # names in a message


@dataclass
class Heads:
    """Heads by task.

    Attributes:
        names: task -> names of the modules that it adds, its output last.
        absent: task -> why the model has no head for it.
        models: task -> the model on the meta device, of every task with a class.
    """

    names: dict[str, list[str]]
    absent: dict[str, str]
    models: dict[str, nn.Module]


@dataclass
class _Load:
    """The report of transformers on weights that it would load.

    Attributes:
        model: without content, on the meta device.
        missing: tensors that the model has and the weights lack.
        unexpected: tensors that the weights have and the model lacks.
        mismatched: (name, shape in the weights, shape in the model).
    """

    model: nn.Module
    missing: set[str]
    unexpected: set[str]
    mismatched: list[tuple]


def base_model(config: PretrainedConfig, attention: str | None = None) -> nn.Module:
    """The model without a head, on the meta device.

    Args:
        config: of the model.
        attention: transformers' name of the attention's implementation.

    Raises:
        ValueError: transformers cannot build it.
    """
    try:
        with torch.device("meta"):
            return transformers.AutoModel.from_config(
                config, attn_implementation=attention, trust_remote_code=False
            )
    except Exception as error:  # each family has checks, and errors, of its own
        why = " ".join(str(error).split())
        raise ValueError(
            f"config.json: transformers cannot build this {config.model_type}: {why}; allowed: "
            "the values that the model was saved with"
        ) from error


def heads(config: PretrainedConfig, tensors: dict[str, Tensor], weights: str) -> Heads:
    """The head of every task that this model can do.

    Args:
        config: of the model.
        tensors: what the weights hold.
        weights: the name of the weights, for messages.

    Raises:
        ValueError: the weights are not those of the configuration, or no task is left.
    """
    base = _load(type(base_model(config)), config, tensors)
    _check_shapes(base, weights)
    _check_enough_layers(base, weights)
    found = Heads({}, {}, {})
    unknown = set(base.unexpected)
    for task in ENCODER_DECODER_TASKS if config.is_encoder_decoder else TASKS:
        task_class = _class_of(task, config)
        if task_class is None:
            found.absent[task] = f"transformers has no such class of {config.model_type}"
            continue
        load = _load(task_class, config, tensors)
        _check_shapes(load, weights)
        unknown &= load.unexpected
        found.models[task] = load.model
        reason = _reason_against(task, config, load)
        if reason:
            found.absent[task] = reason
        else:
            found.names[task] = _head(task, load, weights)
    _check_no_more_layers(base, unknown, weights)
    if not found.names:
        raise ValueError(f"{weights}: no task is left: {found.absent}")
    return found


def tensors_of_class(config: PretrainedConfig, folder: Path) -> dict[str, Tensor]:
    """The tensors that weights of the class in config.json would hold, as fp32.

    Args:
        config: of the model.
        folder: with config.json, for messages.

    Raises:
        ValueError: config.json names no class of transformers.
    """
    names = config.architectures or []
    model_class = getattr(transformers, names[0], None) if names else None
    if not isinstance(model_class, type) or not issubclass(model_class, nn.Module):
        got = names[0] if names else "nothing"
        raise ValueError(
            f"{folder / 'config.json'}: architectures: got {got}, allowed: the name of "
            "transformers' class that the weights belong to, such as LlamaForCausalLM"
        )
    with torch.device("meta"):
        model = model_class(config)
    parameters = model.named_parameters()  # each shared one once, as a file stores it
    return {name: Tensor("F32", tuple(param.shape)) for name, param in parameters}


def _class_of(task: str, config: PretrainedConfig) -> type[nn.Module] | None:
    """The family's class for a task, if there is one."""
    try:
        with torch.device("meta"):
            auto_class = {**TASKS, **ENCODER_DECODER_TASKS}[task]
            cls = getattr(transformers, auto_class)
            return type(cls.from_config(config, trust_remote_code=False))
    except ValueError:  # "Unrecognized configuration class"
        return None


def _load(cls: type[nn.Module], config: PretrainedConfig, tensors: dict[str, Tensor]) -> _Load:
    # Types play no part: whatever is stored is read as fp32.
    content = {name: torch.empty(x.shape, device="meta") for name, x in tensors.items()}
    model, info = cls.from_pretrained(
        None,
        config=config,
        trust_remote_code=False,
        state_dict=content,
        device_map="meta",
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    return _Load(
        model,
        set(info["missing_keys"]),
        set(info["unexpected_keys"]),
        sorted(info["mismatched_keys"]),
    )


def _check_shapes(load: _Load, weights: str) -> None:
    if load.mismatched:
        name, stored, expected = load.mismatched[0]
        raise ValueError(
            f"{weights}: {name}: got shape {list(stored)}, allowed: {list(expected)}, as "
            "config.json says; take both files from one place"
        )


def _check_enough_layers(base: _Load, weights: str) -> None:
    """Check that the weights have every layer of the model without a head."""
    missing = sorted(name for name in base.missing if _numbered(name))
    if missing:
        raise ValueError(
            f"{weights}: got no {_shown(missing)}, allowed: all tensors of the layers that "
            "config.json names; take both files from one place"
        )


def _check_no_more_layers(base: _Load, unknown: set[str], weights: str) -> None:
    """Check that the weights have no layer that the configuration lacks.

    Args:
        base: the model without a head.
        unknown: tensors that no class of the family knows.
        weights: the name of the weights, for messages.
    """
    known = {_pattern(name) for name, _ in base.model.named_parameters()}
    prefix = f"{base.model.base_model_prefix}."
    extra = {name for name in unknown if _pattern(name.removeprefix(prefix)) in known}
    if extra:
        raise ValueError(
            f"{weights}: got {_shown(sorted(extra))}, allowed: tensors of the layers that "
            "config.json names; take both files from one place"
        )


def _reason_against(task: str, config: PretrainedConfig, load: _Load) -> str | None:
    """Why this model cannot do a task for which its family has a class."""
    if task == "language_modelling" and _sees_both_sides(config):
        return "the model attends to both sides of a token"
    if task in PRETRAINED and load.missing:
        return f"the weights lack {_shown(sorted(load.missing))}"
    ambiguous = set(_children(load.model)) & _names_in_base(load.model)
    if ambiguous:
        return f"{', '.join(sorted(ambiguous))} names a module of the head and of the base"
    return None


def _sees_both_sides(config: PretrainedConfig) -> bool:
    """Whether a token attends to those behind it, as in a family that fills masks."""
    if getattr(config, "use_bidirectional_attention", False):
        return True
    fills_masks = _class_of("masked_language_modelling", config) is not None
    return (fills_masks or config.model_type in TWO_SIDED) and not getattr(
        config, "is_decoder", False
    )


def _head(task: str, load: _Load, weights: str) -> list[str]:
    """The modules that a task adds, behind those of the base that the weights lack.

    A new head leaves out what the weights have (ModernBERT's `head`), unless they have all of it.
    """
    children = _children(load.model)
    lacking = [name for name in children if any(x.startswith(f"{name}.") for x in load.missing)]
    head = lacking if lacking and task not in PRETRAINED else children
    new = []
    for name in sorted(load.missing):
        if name.split(".")[0] in children:
            continue
        module = _missing_module(name, load)
        if _numbered(name) or module is None:
            raise ValueError(f"{weights}: got no {name}, allowed: all tensors of the model")
        if module not in new:
            new.append(module)
    return new + head


def _missing_module(tensor: str, load: _Load) -> str | None:
    """The last name of the largest module around a missing tensor without any tensor present."""
    parts = tensor.split(".")[:-1]
    for length in range(1, len(parts) + 1):
        module = ".".join(parts[:length])
        names = [name for name, _ in load.model.get_submodule(module).named_parameters()]
        if all(f"{module}.{name}" in load.missing for name in names):
            return parts[length - 1]
    return None


def _children(model: nn.Module) -> list[str]:
    """The modules with parameters that stand beside the base of a task's model.

    T5's parts stand beside its head, without a module of their own.
    """
    if model.base_model is model:
        output = model.get_output_embeddings()
        return [name for name, module in model.named_children() if module is output]
    return [
        name
        for name, module in model.named_children()
        if module is not model.base_model and any(True for _ in module.parameters())
    ]


def _names_in_base(model: nn.Module) -> set[str]:
    """The last names of the modules of a model's base."""
    if model.base_model is not model:
        bases = [model.base_model]
    else:
        bases = [part for name, part in model.named_children() if name not in _children(model)]
    return {name.rpartition(".")[2] for base in bases for name, _ in base.named_modules()} - {""}


def _numbered(name: str) -> bool:
    """Whether a tensor belongs to one of several layers."""
    return any(part.isdigit() for part in name.split("."))


def _pattern(name: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", name)


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
