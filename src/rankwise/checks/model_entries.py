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
from collections.abc import Collection

from rankwise.checks import model_snapshot, model_tokenizer
from rankwise.checks.model_snapshot import Snapshot
from rankwise.core import family_configs, model_shapes
from rankwise.core.config import ConfigError
from rankwise.core.model_shapes import FILE, matters, no_decoder_start, place
from rankwise.core.snapshot_files import CONFIG, foreign_code
from rankwise.core.tasks import head_key

WIDTHS = ("hidden_size", "n_embd", "dim", "d_model")
NEW_HEADS = ("classification", "multi_label", "regression", "token_classification")
OLD_HEADS = ("language_modelling", "masked_language_modelling", "sequence_to_sequence")
NO_DECODER_START = ("longt5", "switch_transformers", "t5")  # families without a default of it
SAVED_CLASSIFIERS = ("ForSequenceClassification", "ForTokenClassification")

# Modules that transformers renames when it loads weights: GPT-NeoX's files call the head embed_out.
STORED_AS = {"lm_head": "embed_out"}


def problems(name: str, entry: dict, tasks: Collection[str]) -> list[str]:
    """The mistakes in a model's entry, a sentence each.

    Args:
        name: The entry's name.
        entry: Of config/models.yaml.
        tasks: The tasks that jobs have the model do; heads of other tasks are not looked at.
    """
    found = _family_problems(f"{name}.family", entry["family"])
    folder = model_snapshot.folder_here(entry)
    if folder is None:
        return found
    snapshot, unreadable = model_snapshot.read(folder)
    foreign = foreign_code(folder)
    if found or unreadable or foreign:
        return [*found, *unreadable, *filter(None, [foreign])]
    # The hub's cache may have some of the files only; the others come when the model is prepared.
    is_whole = "files" in entry["weights"]
    if is_whole and not (folder / CONFIG).is_file():
        found.append(f"{FILE}: {name}.weights.files: {folder} has no {CONFIG}; copy it, too")
    found += _config_problems(name, entry, snapshot)
    if snapshot.tensors:
        said = {_key(sentence) for sentence in found}  # a number of layers is compared twice
        of_shapes = model_shapes.problems(f"{name}.", entry, snapshot.shapes)
        found += [sentence for sentence in of_shapes if _key(sentence) not in said]
        found += _head_problems(name, entry["head"], tasks, snapshot)
    if is_whole:
        found += model_tokenizer.absent(f"{FILE}: {name}", folder)
        found += model_tokenizer.empty(f"{FILE}: {name}", folder)
    return found + model_tokenizer.too_large(f"{FILE}: {name}", snapshot)


def answer_problems(name: str, entry: dict, datasets: dict[str, dict]) -> list[str]:
    """What a model's tokenizer lacks for the prompts and answers that it is trained on.

    Args:
        name: The entry's name.
        entry: Of config/models.yaml.
        datasets: Entries that the model is trained on, by name.
    """
    of_answers = {
        one: dataset for one, dataset in datasets.items() if {"prompt", "messages"} & set(dataset)
    }
    folder = model_snapshot.folder_here(entry)
    if folder is None or not of_answers:
        return []
    return model_tokenizer.without_answers(f"{FILE}: {name}", folder, of_answers)


def _key(sentence: str) -> str:
    """The file and key that a sentence begins with."""
    return sentence.partition(": got ")[0]


# The family, and config.json ----------------------------------------------------------------------


def _family_problems(key: str, family: str) -> list[str]:
    known = families()
    if not known or family in known:
        return []
    near = difflib.get_close_matches(family, known, n=3)
    nearest = f" (nearest: {', '.join(near)})" if near else ""
    allowed = f"a model_type that the installed transformers has{nearest}"
    return [str(ConfigError(FILE, key, family, allowed))]


def families() -> frozenset[str]:
    """Every model_type of the installed transformers; none without transformers."""
    return frozenset(family_configs.class_names())


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
    if family in NO_DECODER_START and config.get("decoder_start_token_id") is None:
        found.append(no_decoder_start(snapshot.folder))
    for key, value in entry["architecture"].items():
        # Where config.json has nothing, transformers has a default, which each job compares.
        if matters(key) and config.get(key) is not None and not _agree(value, config[key]):
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


# Heads --------------------------------------------------------------------------------------------


def _head_problems(
    name: str, heads: dict[str, list[str]], tasks: Collection[str], snapshot: Snapshot
) -> list[str]:
    """Heads that are not the model's: new ones that it has, or old ones that it lacks."""
    found = []
    used = {head_key({"head": heads}, task) for task in tasks}
    for task, head in heads.items():
        if task not in used:
            continue
        key = f"{name}.head.{task}"
        tensors_by_module = {
            module: [
                tensor
                for tensor in snapshot.tensors
                if {module, STORED_AS.get(module)} & set(tensor.split(".")[:-1])
            ]
            for module in head
        }
        if task in NEW_HEADS:
            for module, tensors in tensors_by_module.items():
                found += _new_head_problems(key, module, tensors, snapshot)
        elif task in OLD_HEADS and not any(tensors_by_module.values()):
            found += _old_head_problems(key, head, task, snapshot)
    return found


def _new_head_problems(key: str, module: str, tensors: list[str], snapshot: Snapshot) -> list[str]:
    """A classifier's head is new, unless the folder holds a whole classifier."""
    classes = snapshot.config.get("architectures") or [""]
    if str(classes[0]).endswith(SAVED_CLASSIFIERS):  # its head stands at the top of the model
        tensors = [tensor for tensor in tensors if not tensor.startswith(f"{module}.")]
    if not tensors:
        return []
    allowed = (
        f"modules that the task adds, and {snapshot.folder} has {tensors[0]}, which is part of "
        "the pretrained model"
    )
    return [str(ConfigError(FILE, key, module, allowed))]


def _old_head_problems(key: str, head: list[str], task: str, snapshot: Snapshot) -> list[str]:
    """A language model's head is in the weights, or is its table of embeddings."""
    # A masked language model has parameters beside the table. Of the others the family's default
    # decides where config.json does not say it, and each job finds out.
    may_be_tied = task != "masked_language_modelling"
    if may_be_tied and snapshot.config.get("tie_word_embeddings") is not False:
        return []
    outside = dict.fromkeys(
        tensor.split(".")[0] for tensor in snapshot.tensors if place(tensor) is None
    )
    allowed = (
        f"modules of the weights in {snapshot.folder}, which have beside their layers: "
        f"{', '.join(outside)}; use a snapshot with this head, or correct its names"
    )
    return [str(ConfigError(FILE, key, ", ".join(head), allowed))]
