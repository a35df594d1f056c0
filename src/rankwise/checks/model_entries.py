"""Compare the entries of config/models.yaml with the models that they describe, before any job.

An entry is typed, or made by a command and edited. A wrong role trains other matrices, a wrong
head leaves a random one frozen, a wrong number of layers profiles another model than the one that
trains, and none of them fails by itself. So what an entry says is compared with config.json, with
the names and shapes of the tensors and with the tokenizer, where the files are on this machine.
What needs the model's modules or the defaults of transformers is checked by each job
(`models/check.py`).

Standard library only: it runs on a login node.
"""

import difflib
import functools
import importlib.util
import re
from pathlib import Path

from rankwise.checks import model_snapshot, model_tokenizer
from rankwise.checks.model_snapshot import Place, Snapshot, place
from rankwise.core.config import ConfigError
from rankwise.core.snapshot_files import CONFIG

FILE = "config/models.yaml"
# Keys of a configuration that neither shape a model nor change what it computes in training.
# The tokenizer gives the padding token, and random weights are replaced by the snapshot's.
NO_SHAPE = (
    "bos_token_id",
    "decoder_start_token_id",
    "dtype",
    "eos_token_id",
    "initializer_range",
    "pad_token_id",
    "torch_dtype",
    "use_cache",
)
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
WIDTHS = ("hidden_size", "n_embd", "dim", "d_model")
# The table of learnt positions, and the families that leave its first rows unused. Source: the
# embeddings of these models in transformers (`padding_idx + 1`, `self.offset`).
POSITIONS = ("position_embeddings", "wpe", "embed_positions")
UNUSED_ROWS = {"camembert": 2, "opt": 2, "roberta": 2, "xlm-roberta": 2}
SAVED_CLASSIFIER = "ForSequenceClassification"
NAMES_SHOWN = 16


def problems(name: str, entry: dict) -> list[str]:
    """What is wrong with a model's entry, a sentence each.

    Args:
        name: The entry's name.
        entry: Of config/models.yaml.
    """
    found = _family_problems(f"{name}.family", entry["family"])
    folder = model_snapshot.folder_here(entry)
    if folder is None:
        return found
    snapshot, unreadable = model_snapshot.read(folder)
    if found or unreadable:
        return [*found, *unreadable]
    is_complete = "files" in entry["weights"]  # a hub's cache may have some of the files only
    if is_complete and not (folder / CONFIG).is_file():
        found.append(f"{FILE}: {name}.weights.files: {folder} has no {CONFIG}; copy it, too")
    found += _config_problems(name, entry, snapshot)
    if snapshot.tensors:
        found += _role_problems(name, entry, snapshot)
        found += _position_problems(name, entry, snapshot)
        found += _head_problems(name, entry, snapshot)
        is_complete = True
    if is_complete:
        found += model_tokenizer.problems(f"{FILE}: {name}", snapshot)
    return found


# The family, and config.json ----------------------------------------------------------------------


def _family_problems(key: str, family: str) -> list[str]:
    known = families()
    if not known or family in known:
        return []
    near = difflib.get_close_matches(family, known, n=3)
    nearest = f" (nearest: {', '.join(near)})" if near else ""
    allowed = f"a model_type that the installed transformers has{nearest}"
    return [str(ConfigError(FILE, key, family, allowed))]


@functools.cache
def families() -> frozenset[str]:
    """Every model_type of the installed transformers, read from its source; none without one."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        return frozenset()
    folder = Path(spec.origin).parent / "models/auto"
    found: set[str] = set()
    for file in ("auto_mappings.py", "configuration_auto.py"):
        if (folder / file).is_file():
            text = (folder / file).read_text(encoding="utf-8")
            found.update(re.findall(r'"([\w.-]+)"[,:]\s*"\w+Config"', text))
    return frozenset(found)


def _config_problems(name: str, entry: dict, snapshot: Snapshot) -> list[str]:
    """Where the entry and config.json have other values for one key."""
    config, file = snapshot.config, snapshot.folder / CONFIG
    if not config:
        return []
    family = config.get("model_type")
    if family != entry["family"]:
        allowed = f"{family}, as model_type of {file} says"
        return [str(ConfigError(FILE, f"{name}.family", entry["family"], allowed))]
    found = []
    for key, value in entry["architecture"].items():
        # Where config.json has nothing, transformers has a default, which each job compares.
        if key not in NO_SHAPE and config.get(key) is not None and not _agree(value, config[key]):
            allowed = f"{config[key]!r}, as {file} says"
            found.append(str(ConfigError(FILE, f"{name}.architecture.{key}", value, allowed)))
    width = next((config[key] for key in WIDTHS if key in config), entry["hidden_size"])
    if width != entry["hidden_size"]:
        allowed = f"{width}, as {file} says"
        found.append(str(ConfigError(FILE, f"{name}.hidden_size", entry["hidden_size"], allowed)))
    return found


def _agree(ours: object, theirs: object) -> bool:
    """Whether two values of a configuration agree; of mappings, in the keys that both have."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return all(_agree(ours[key], theirs[key]) for key in ours.keys() & theirs.keys())
    return ours == theirs


# Roles --------------------------------------------------------------------------------------------


def _role_problems(name: str, entry: dict, snapshot: Snapshot) -> list[str]:
    """Roles whose module is not in every layer, or has another shape than the entry says."""
    matrices = snapshot.matrices()
    modules_by_role: dict[str, list[str]] = {role: [] for role in entry["modules"]}
    role_by_ending = {module["name"]: role for role, module in entry["modules"].items()}
    for matrix in matrices:
        endings = [ending for ending in role_by_ending if f".{matrix}".endswith(f".{ending}")]
        if endings:  # the longest decides, as in `modules_of` of methods/parts/peft_base.py
            modules_by_role[role_by_ending[max(endings, key=len)]].append(matrix)
    layers_by_stack = _layers_by_stack(snapshot)
    found = []
    for role, module in entry["modules"].items():
        key, modules = f"{name}.modules.{role}", modules_by_role[role]
        if not modules:
            allowed = _allowed_names(module["name"], snapshot)
            found.append(str(ConfigError(FILE, f"{key}.name", module["name"], allowed)))
            continue
        found += _place_problems(key, module, modules, layers_by_stack, snapshot.folder)
        wrong = [matrix for matrix in modules if list(matrices[matrix]) != module["shape"]]
        if wrong:
            allowed = (
                f"{list(matrices[wrong[0]])}, the shape of {wrong[0]}.weight in {snapshot.folder}"
            )
            found.append(str(ConfigError(FILE, f"{key}.shape", module["shape"], allowed)))
    return found or _layer_problems(name, entry, modules_by_role, layers_by_stack, snapshot)


def _layers_by_stack(snapshot: Snapshot) -> dict[str, set[int]]:
    """The numbers of the layers that have tensors, by the name of their stack."""
    layers: dict[str, set[int]] = {}
    for tensor in snapshot.tensors:
        if found := place(tensor):
            layers.setdefault(found.stack, set()).add(found.layer)
    return layers


def _allowed_names(got: str, snapshot: Snapshot) -> str:
    """The names that a role could have: of the modules in layers, without the layer's number."""
    places = [place(matrix) for matrix in snapshot.matrices()]
    names = list(dict.fromkeys(found.rest for found in places if found))
    lasts = {name.rpartition(".")[2]: name for name in names}
    near = difflib.get_close_matches(got, [*names, *lasts], n=1)
    nearest = f" (nearest: {near[0]})" if near else ""
    shown = ", ".join(names[:NAMES_SHOWN]) + ", ..." * (len(names) > NAMES_SHOWN)
    return f"the end of a module's name in {snapshot.folder}: {shown}{nearest}"


def _place_problems(
    key: str, module: dict, modules: list[str], layers_by_stack: dict[str, set[int]], folder: Path
) -> list[str]:
    """Layers that have no module of a role, and modules of the role that are in no layer."""
    outside = [matrix for matrix in modules if place(matrix) is None]
    if outside:
        allowed = (
            f"a name of modules in layers only, and {folder} has {outside[0]}, too; write more of "
            "the name"
        )
        return [str(ConfigError(FILE, f"{key}.name", module["name"], allowed))]
    layers: dict[str, set[int]] = {}
    for matrix in modules:
        found: Place = place(matrix)
        layers.setdefault(found.stack, set()).add(found.layer)
    for stack, numbers in layers.items():
        lacking = sorted(layers_by_stack[stack] - numbers)
        if lacking:
            allowed = (
                f"a module of every layer, and {stack}.{lacking[0]} of {folder} has none of this "
                "name"
            )
            return [str(ConfigError(FILE, f"{key}.name", module["name"], allowed))]
    return []


def _layer_problems(
    name: str,
    entry: dict,
    modules_by_role: dict[str, list[str]],
    layers_by_stack: dict[str, set[int]],
    snapshot: Snapshot,
) -> list[str]:
    """Another number of layers than the weights have; of an encoder with a decoder, none."""
    stacks = {place(matrix).stack for modules in modules_by_role.values() for matrix in modules}
    key = next((key for key in LAYERS if key in entry["architecture"]), None)
    if len(stacks) != 1 or key is None:
        return []
    layers, got = len(layers_by_stack[stacks.pop()]), entry["architecture"][key]
    if layers == got or snapshot.config.get(key, got) != got:  # the latter is a problem already
        return []
    allowed = f"{layers}, the layers of the weights in {snapshot.folder}"
    return [str(ConfigError(FILE, f"{name}.architecture.{key}", got, allowed))]


# Positions and heads ------------------------------------------------------------------------------


def _position_problems(name: str, entry: dict, snapshot: Snapshot) -> list[str]:
    """More positions than the table of learnt positions has rows."""
    unused = UNUSED_ROWS.get(entry["family"], 0)
    for matrix, shape in snapshot.matrices().items():
        if matrix.rpartition(".")[2] not in POSITIONS:
            continue
        if entry["max_positions_tokens"] > shape[0] - unused:
            allowed = f"at most {shape[0] - unused}, for {matrix}.weight in {snapshot.folder}"
            got = entry["max_positions_tokens"]
            return [str(ConfigError(FILE, f"{name}.max_positions_tokens", got, allowed))]
    return []


def _head_problems(name: str, entry: dict, snapshot: Snapshot) -> list[str]:
    """Heads that are not the model's: new ones that it has, or old ones that it lacks."""
    found = []
    for task, head in entry["head"].items():
        key = f"{name}.head.{task}"
        for module in head:
            tensors = [tensor for tensor in snapshot.tensors if module in tensor.split(".")[:-1]]
            if task == "classification":
                found += _new_head_problems(key, module, tensors, snapshot)
            elif task == "language_modelling" and not tensors:
                found += _old_head_problems(key, module, snapshot)
    return found


def _new_head_problems(key: str, module: str, tensors: list[str], snapshot: Snapshot) -> list[str]:
    """A classifier's head is new, unless the folder holds a whole classifier."""
    classes = snapshot.config.get("architectures") or [""]
    if str(classes[0]).endswith(SAVED_CLASSIFIER):  # its head stands at the top of the model
        tensors = [tensor for tensor in tensors if not tensor.startswith(f"{module}.")]
    if not tensors:
        return []
    allowed = (
        f"modules that the task adds, and {snapshot.folder} has {tensors[0]}, which is part of "
        "the pretrained model"
    )
    return [str(ConfigError(FILE, key, module, allowed))]


def _old_head_problems(key: str, module: str, snapshot: Snapshot) -> list[str]:
    """A language model's head is in the weights, or is its table of embeddings."""
    # Where config.json does not say, the family's default decides, and each job finds out.
    if snapshot.config.get("tie_word_embeddings") is not False:
        return []
    untied = [
        matrix
        for matrix, shape in snapshot.matrices().items()
        if place(matrix) is None and shape[0] == snapshot.config.get("vocab_size")
    ]
    allowed = (
        f"a module of the weights in {snapshot.folder}, whose config.json ties no head to the "
        f"embeddings; as many rows as the vocabulary have: {', '.join(untied) or 'none'}"
    )
    return [str(ConfigError(FILE, key, module, allowed))]
