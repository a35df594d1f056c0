"""Derive a whole models entry from a model: its configuration, its modules and its weights.

Nothing is guessed. What a model's files do not say is asked for in one sentence.
"""

import re
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

import transformers
import yaml
from transformers import PretrainedConfig

from rankwise.core.safetensors_files import Tensor
from rankwise.models import derive_config, derive_heads, derive_modules, experts
from rankwise.models.derive_modules import Matrices
from rankwise.models.derive_roles import Roles, roles_of
from rankwise.models.derive_source import open_source

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # as config/models.yaml allows
SHAPES_ONLY = "known by its shapes alone"
DTYPES = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}


@dataclass
class Choices:
    """The choices of a user.

    Attributes:
        name: of the entry; made of the folder's or repository's name if not given.
        revision: branch, tag or commit on the hub.
        roles: role -> end of a module's name.
        positions: the longest input in tokens, where no file says it.
        shapes_only: the folder has no weights; the entry is for profiles.
    """

    name: str | None = None
    revision: str | None = None
    roles: dict[str, str] | None = None
    positions: int | None = None
    shapes_only: bool = False


@dataclass
class Derived:
    """An entry, and what it was derived from.

    Attributes:
        name: of the entry.
        entry: for config/models.yaml.
        roles: role -> its matrices.
        others: matrices without a role.
        parameters: of the model without a head.
        notes: sentences for the user.
    """

    name: str
    entry: dict
    roles: dict[str, Matrices]
    others: list[Matrices]
    parameters: int
    notes: list[str]


def derive(given: str, choices: Choices, project: Path) -> Derived:
    """Derive the entry of a model. Weights are digested, not loaded.

    Args:
        given: a path, possibly with ${VARIABLES}, or a repository on the hub.
        choices: what the user decides.
        project: the folder that the user works in.

    Raises:
        ValueError: no entry can be derived; one sentence says why, and what to do.
        FileNotFoundError: a variable in the path is not set.
    """
    transformers.logging.set_verbosity_error()  # it would warn of every head that is new
    transformers.logging.disable_progress_bar()
    name = entry_name(choices.name or default_name(given), is_given=choices.name is not None)
    source = open_source(given, choices.revision, project, choices.shapes_only)
    config = derive_config.read_config(source.folder)
    base = derive_heads.base_model(config)
    tensors = source.tensors
    if choices.shapes_only:
        tensors = derive_heads.tensors_of_class(config, source.folder)
    heads = derive_heads.heads(config, tensors, source.name)
    told, reason = _told_roles(config)
    chosen = choices.roles or {}
    modules = derive_modules.modules(base, list(heads.models.values()), told.matrices, chosen)
    if not modules.entry:
        raise ValueError(_no_roles(given, modules.others, reason))
    has_own_head = "lm_head.weight" in tensors and derive_config.says_own_head(source.folder)
    positions = choices.positions or derive_config.positions(config, base, source.folder)
    entry = {
        "family": config.model_type,
        "hidden_size": _width(config, told),
        "max_positions_tokens": positions,
        "architecture": derive_config.architecture(config, has_own_head),
        "modules": modules.entry,
        "head": heads.names,
        **({"weights": source.weights} if source.weights else {}),
        "licence": source.licence,
        "note": SHAPES_ONLY
        if choices.shapes_only
        else f"weights stored in {stored_dtype(source.tensors)}",
    }
    notes = [f"no {task}: {why}" for task, why in heads.absent.items()]
    notes += modules.notes
    if reason:
        notes.append(f"its roles are those that you gave, since the model does not run: {reason}")
    parameters = sum(param.numel() for param in base.parameters())
    return Derived(name, entry, modules.matrices, modules.others, parameters, notes)


# Names --------------------------------------------------------------------------------------------


def default_name(given: str) -> str:
    """An entry's name from the last part of a path or repository: `owner/Llama-3.2` is llama_3_2.

    Args:
        given: a path or a repository on the hub.
    """
    last = Path(given).name.strip("${}") or Path.cwd().joinpath(given).resolve().name
    name = re.sub(r"[^a-z0-9_]+", "_", last.lower()).strip("_")
    return name if name and _is_text(name) else f"model_{name}".rstrip("_")


def entry_name(name: str, is_given: bool) -> str:
    """The name, if an entry may have it.

    Args:
        name: of the entry.
        is_given: the user gave it.

    Raises:
        ValueError: it may not.
    """
    if NAME.fullmatch(name) and _is_text(name):
        return name
    allowed = "letters, digits, _ . and -, and no word that YAML reads as a number or null"
    hint = "" if is_given else "; give one: --name NAME"
    raise ValueError(f"--name: got {name!r}, allowed: {allowed}{hint}")


def _is_text(name: str) -> bool:
    return isinstance(yaml.safe_load(name), str)


# Facts --------------------------------------------------------------------------------------------


def stored_dtype(tensors: dict[str, Tensor]) -> str:
    """The type that most numbers of the weights are stored in.

    Args:
        tensors: of the weights.
    """
    numbers: Counter[str] = Counter()
    for tensor in tensors.values():
        numbers[tensor.dtype] += prod(tensor.shape)
    most = max(numbers, key=numbers.get)
    return DTYPES.get(most, most)


def _width(config: PretrainedConfig, told: Roles) -> int:
    """The width of the hidden states that layers exchange."""
    width = getattr(config, "hidden_size", None) or told.width
    if not width:
        raise ValueError("config.json: hidden_size: got nothing, allowed: the model's width")
    return width


def _told_roles(config: PretrainedConfig) -> tuple[Roles, str | None]:
    """The roles that the flow of data tells; or none, and why the model does not run."""
    try:
        with experts.on_meta():
            return roles_of(derive_heads.base_model(config, attention="eager")), None
    except Exception as error:  # whatever a model's code raises on the meta device
        return Roles(), " ".join(str(error).split())


def _no_roles(given: str, matrices: list[Matrices], reason: str | None) -> str:
    listed = "; ".join(derive_modules.described(matrices)) or "none"
    why = f" (the model does not run: {reason})" if reason else ""
    return (
        f"{given}: the structure tells the role of no matrix{why}; name them yourself, such as "
        f"--role query=NAME --role value=NAME, where NAME is the end of a module's name; its "
        f"matrices: {listed}"
    )
