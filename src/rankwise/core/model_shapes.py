"""Compare an entry of config/models.yaml with the names and shapes of a model's tensors.

The tensors are those of a snapshot, read from its headers while planning, or the parameters of a
model that a job has built. Nothing here changes a number: a job either passes or ends.

Standard library only: the Snakefile imports this module.
"""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rankwise.core.errors import ConfigError

FILE = "config/models.yaml"
# Keys of a configuration that neither shape a model nor change what it computes in training, beside
# the ids of special tokens, which the tokenizer gives. Random weights are replaced by a snapshot's.
NO_SHAPE = (
    "dtype",
    "init_std",
    "initializer_cutoff_factor",
    "initializer_range",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "torch_dtype",
    "use_cache",
)
# Keys of an architecture that count the layers of the weights. ALBERT's layers share those of a few
# groups.
LAYERS = ("num_hidden_groups", "num_hidden_layers", "n_layer", "n_layers", "num_layers")
# The table of learnt positions, and the families that leave its first rows unused. Source: the
# embeddings of these models in transformers (`padding_idx + 1`, `self.offset`).
POSITIONS = ("position_embeddings", "wpe", "embed_positions")
UNUSED_ROWS = dict.fromkeys(("bart", "camembert", "mbart", "opt", "roberta", "xlm-roberta"), 2)
# The name of a module in a numbered layer: the stack of layers, the layer's number, the rest.
IN_LAYER = re.compile(r"^(?:(?P<stack>.*?)\.)?(?P<layer>\d+)\.(?P<rest>.+)$")
NAMES_SHOWN = 16


class Place(NamedTuple):
    """Where a module stands in its model."""

    stack: str  # what all layers of a stack have before their number
    layer: int
    rest: str  # of the name, after the number


class Shapes:
    """The tensors of a model.

    Args:
        by_name: Name of each tensor -> its shape, as it is stored.
        source: What the tensors are of, for messages: a folder, or a family of models.

    Attributes:
        matrices: Name of each module with a weight of two dimensions -> that weight's shape.
        layers: Name of each stack of layers -> the numbers of its layers.
    """

    def __init__(self, by_name: Mapping[str, tuple[int, ...]], source: str):
        self.source = source
        self.matrices = {
            name.removesuffix(".weight"): tuple(shape)
            for name, shape in by_name.items()
            if name.endswith(".weight") and len(shape) == 2
        }
        self.layers: dict[str, set[int]] = {}
        for name in by_name:
            if found := place(name):
                self.layers.setdefault(found.stack, set()).add(found.layer)


def matters(key: str) -> bool:
    """Whether a key of a configuration shapes a model, or changes what it computes in training."""
    return key not in NO_SHAPE and not key.endswith("_token_id")


def place(module: str) -> Place | None:
    """The place of a module in a numbered layer, or None for one that is in no layer."""
    match = IN_LAYER.match(module)
    return Place(match["stack"] or "", int(match["layer"]), match["rest"]) if match else None


def problems(where: str, entry: dict, shapes: Shapes) -> list[str]:
    """Where an entry and a model's shapes differ, a sentence each.

    Each role has a module in every layer, of the entry's shape; the number of layers agrees, and
    the table of learnt positions, if there is one, has a row for each position.

    Args:
        where: What stands before an entry's key in a message: `NAME.`, with its dot.
        entry: Of config/models.yaml.
        shapes: The model's tensors.
    """
    by_role = _modules_by_role(entry["modules"], shapes)
    found = []
    for role, module in entry["modules"].items():
        found += _role_problems(f"{where}modules.{role}", module, by_role[role], shapes)
    if not found:
        found += _layer_problems(where, entry["architecture"], by_role, shapes)
    return found + _position_problems(where, entry, shapes)


def _modules_by_role(modules: dict[str, dict], shapes: Shapes) -> dict[str, list[str]]:
    """The matrices of each role; the longest ending decides, as in methods/parts/peft_base.py."""
    role_by_ending = {module["name"]: role for role, module in modules.items()}
    by_role: dict[str, list[str]] = {role: [] for role in modules}
    for matrix in shapes.matrices:
        endings = [ending for ending in role_by_ending if f".{matrix}".endswith(f".{ending}")]
        if endings:
            by_role[role_by_ending[max(endings, key=len)]].append(matrix)
    return by_role


def _role_problems(key: str, module: dict, matrices: list[str], shapes: Shapes) -> list[str]:
    """Why a role does not have one shape of module in every layer."""
    allowed = _allowed_name(module["name"], matrices, shapes)
    if allowed:
        return [str(ConfigError(FILE, f"{key}.name", module["name"], allowed))]
    for matrix in matrices:
        shape = list(shapes.matrices[matrix])
        if shape != module["shape"]:
            allowed = f"{shape}, the shape of {matrix}.weight in {shapes.source}"
            return [str(ConfigError(FILE, f"{key}.shape", module["shape"], allowed))]
    return []


def _allowed_name(name: str, matrices: list[str], shapes: Shapes) -> str | None:
    """The allowed names, in words, in place of a role's wrong one; None if the name is right."""
    if not matrices:
        return _names_in_layers(name, shapes)
    layers: dict[str, set[int]] = {}
    for matrix in matrices:
        found = place(matrix)
        if found is None:
            return (
                f"a name of modules in layers only, and {shapes.source} has {matrix}, too; write "
                "more of the name"
            )
        layers.setdefault(found.stack, set()).add(found.layer)
    for stack, numbers in layers.items():
        lacking = sorted(shapes.layers[stack] - numbers)
        if lacking:
            layer = f"{stack}.{lacking[0]}".removeprefix(".")
            return f"a module of every layer, and {layer} of {shapes.source} has none of this name"
    return None


def _names_in_layers(got: str, shapes: Shapes) -> str:
    """The names that a role could have: of the modules in layers, without the layer's number."""
    places = [place(matrix) for matrix in shapes.matrices]
    names = list(dict.fromkeys(found.rest for found in places if found))
    last_parts = [name.rpartition(".")[2] for name in names]
    near = difflib.get_close_matches(got, [*last_parts, *names], n=1)
    nearest = f" (nearest: {near[0]!r})" if near else ""
    shown = ", ".join(names[:NAMES_SHOWN]) + ", ..." * (len(names) > NAMES_SHOWN)
    return f"the end of a module's name in {shapes.source}: {shown}{nearest}"


def _layer_problems(
    where: str, architecture: dict, by_role: dict[str, list[str]], shapes: Shapes
) -> list[str]:
    """Another number of layers than the tensors have; not asked of an encoder with a decoder."""
    stacks = {place(matrix).stack for matrices in by_role.values() for matrix in matrices}
    key = next((key for key in LAYERS if key in architecture), None)
    if len(stacks) != 1 or key is None:
        return []
    layers = len(shapes.layers[stacks.pop()])
    if layers == architecture[key]:
        return []
    allowed = f"{layers}, the layers of the weights in {shapes.source}"
    return [str(ConfigError(FILE, f"{where}architecture.{key}", architecture[key], allowed))]


def _position_problems(where: str, entry: dict, shapes: Shapes) -> list[str]:
    """More positions than the table of learnt positions has rows."""
    got, unused = entry["max_positions_tokens"], UNUSED_ROWS.get(entry["family"], 0)
    for matrix, shape in shapes.matrices.items():
        if matrix.rpartition(".")[2] in POSITIONS and got > shape[0] - unused:
            allowed = f"at most {shape[0] - unused}, for {matrix}.weight in {shapes.source}"
            return [str(ConfigError(FILE, f"{where}max_positions_tokens", got, allowed))]
    return []


def no_decoder_start(folder: Path) -> str:
    """The sentence on an encoder-decoder whose configuration lacks the decoder's first token."""
    return (
        f"{folder / 'config.json'}: decoder_start_token_id: got nothing, allowed: the id of the "
        "token that the decoder was pretrained to begin with, such as that of the padding for T5; "
        "add it"
    )
