"""Compare a model that a job has built with its entry, and a loaded one with its snapshot.

Each check ends the job with one sentence, and changes nothing. While planning, `checks/` compares
what can be compared without torch (`model_entries.py`); here are the modules of the model, the
defaults of transformers, and which weights were really loaded.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from rankwise.core import model_shapes
from rankwise.core.errors import ConfigError
from rankwise.core.model_shapes import FILE, Shapes, matters, no_decoder_start, place

NAMES_SHOWN = 4
BEGIN_WITH_LANGUAGE = ("mbart", "plbart")
# What a saved configuration says of the file and of the labels, not of the model.
NO_MODEL = (
    "architectures",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "transformers_version",
)


# A model built from its entry ---------------------------------------------------------------------


def built(model: nn.Module, entry: dict, task: str) -> None:
    """Check that a model built from an entry has the entry's roles, heads, width and positions.

    Args:
        model: With the head of the task; any device.
        entry: Of config/models.yaml.
        task: A key of the entry's `head`.

    Raises:
        ValueError: A role has no module in some layer, or another shape; a module of the head does
            not exist; or the width or the number of positions differs.
    """
    where = f"a {entry['family']} model: "  # the entry's name is not among its keys
    shapes = {key: tuple(param.shape) for key, param in model.named_parameters()}
    found = model_shapes.problems(where, entry, Shapes(shapes, f"transformers' {_class(model)}"))
    width = getattr(model.config, "hidden_size", entry["hidden_size"])
    if width != entry["hidden_size"]:
        allowed = f"{width}, as its architecture says"
        found.append(str(ConfigError(FILE, f"{where}hidden_size", entry["hidden_size"], allowed)))
    for head in entry["head"].get(task, []):
        if not _modules_called(head, model):
            allowed = f"modules of {_class(model)}: {', '.join(_outside_layers(model))}"
            found.append(str(ConfigError(FILE, f"{where}head.{task}", head, allowed)))
    if found:
        raise ValueError("\n".join(found))


def _class(model: nn.Module) -> str:
    return type(model).__name__


def _modules_called(last: str, model: nn.Module) -> list[str]:
    """The full names of the modules whose last part is `last`, as methods look for a head."""
    return [name for name, _ in model.named_modules() if name.rpartition(".")[2] == last]


def _outside_layers(model: nn.Module) -> list[str]:
    """The last names of the modules with parameters outside of the base model."""
    base = getattr(model, "base_model_prefix", "")
    names = []
    for name, module in model.named_modules():
        is_beside = name and name.split(".")[0] != base and place(name) is None
        if is_beside and next(module.parameters(), None) is not None:
            names.append(name.rpartition(".")[2])
    return list(dict.fromkeys(names))


# A model loaded from a snapshot -------------------------------------------------------------------


def loaded(model: nn.Module, loading: dict, folder: Path, new_head: Collection[str]) -> None:
    """Check that every parameter of a model came from its snapshot, except those of the new head.

    Args:
        model: As transformers loaded it.
        loading: transformers' report: `missing_keys`, `unexpected_keys`, `mismatched_keys`.
        folder: The snapshot, for messages.
        new_head: Last names of the modules that the task adds; empty if the head is the model's.

    Raises:
        ValueError: Weights are missing, do not fit, or are left over; or the new head is not new.
    """
    if loading["mismatched_keys"]:
        name, theirs, ours = sorted(loading["mismatched_keys"])[0]
        raise ValueError(
            f"{folder}: {name}: got shape {list(theirs)}, allowed: {list(ours)}, as config.json "
            f"and the dataset's classes say ({len(loading['mismatched_keys'])} in all); use a "
            "snapshot whose config.json belongs to its weights, and a saved classifier with its "
            "own classes only"
        )
    missing = set(loading["missing_keys"])
    lacking = [name for name in sorted(missing) if not set(name.split(".")) & set(new_head)]
    if lacking:
        added = f" beside the new head ({', '.join(new_head)})" if new_head else ""
        raise ValueError(
            f"{folder}: the weights lack {_shown(lacking)}, allowed: weights with every parameter "
            f"of {_class(model)}{added}; without them it would start at random: use a snapshot "
            f"that has them, or name what is new in `head` of {FILE}"
        )
    left_over = _left_over(loading["unexpected_keys"], model)
    if left_over:
        raise ValueError(
            f"{folder}: the weights have {_shown(left_over)}, which {_class(model)} of "
            "config.json has not, allowed: weights of its layers only; use a snapshot whose "
            "config.json belongs to its weights"
        )
    _check_new_head(model, missing, folder, new_head)


def starts_its_decoder(model: nn.Module, folder: Path) -> None:
    """Check that an encoder-decoder says which token its decoder begins with.

    Args:
        model: As transformers loaded it.
        folder: The snapshot, for messages.

    Raises:
        ValueError: config.json does not say it.
    """
    if model.config.is_encoder_decoder and not has_decoder_start(model.config):
        raise ValueError(no_decoder_start(folder))


def has_decoder_start(config: PretrainedConfig) -> bool:
    """Whether a configuration says which token the decoder begins with.

    Some families begin with the mark of the language, which ends the target.
    """
    first = getattr(config, "decoder_start_token_id", None)
    return first is not None or config.model_type in BEGIN_WITH_LANGUAGE


def _left_over(names: Iterable[str], model: nn.Module) -> list[str]:
    """Weights in layers of the model that it does not take; the head of another task may be left.

    A snapshot of a base model names its modules without the prefix that they have here.
    """
    base = f"{getattr(model, 'base_model_prefix', '')}."
    parameters = (place(name) for name, _ in model.named_parameters())
    stacks = {found.stack.removeprefix(base) for found in parameters if found}
    return [
        name
        for name in sorted(names)
        if (found := place(name)) and found.stack.removeprefix(base) in stacks
    ]


def _check_new_head(
    model: nn.Module, missing: set[str], folder: Path, new_head: Collection[str]
) -> None:
    """A new head has no weights in the snapshot, unless it was saved as this classifier's head."""
    base = getattr(model, "base_model_prefix", "")
    for head in new_head:
        for module in _modules_called(head, model):
            names = [name for name, _ in model.named_parameters() if name.startswith(f"{module}.")]
            is_of_base = module.split(".")[0] == base
            kept = [name for name in names if name not in missing]
            if is_of_base and kept:
                raise ValueError(
                    f"{FILE}: head: got {head}, allowed: modules that the task adds; {kept[0]} is "
                    f"pretrained, in {folder}"
                )


def _shown(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def same_model(model: nn.Module, expected: nn.Module, where: str) -> None:
    """Check that an entry describes the model that trains: profiles are of the entry's model.

    Args:
        model: Loaded from the snapshot.
        expected: Built from the entry, on any device.
        where: File and name of the entry.

    Raises:
        ValueError: A value of the configuration, or the name or shape of a parameter, differs.
    """
    ours, theirs = expected.config.to_dict(), model.config.to_dict()
    for key in sorted(ours.keys() & theirs.keys()):
        is_compared = matters(key) and key not in NO_MODEL and not key.startswith("_")
        if is_compared and ours[key] != theirs[key]:
            raise ValueError(
                f"{where}.architecture.{key}: got {ours[key]!r}, allowed: {theirs[key]!r}, as "
                "config.json of the weights says (what an entry leaves out has transformers' "
                "default)"
            )
    shapes = {name: tuple(param.shape) for name, param in model.named_parameters()}
    for name, param in expected.named_parameters():
        found = shapes.pop(name, None)
        if found != tuple(param.shape):
            got = f"{name} of shape {list(param.shape)}"
            allowed = f"{list(found)}, as the weights have" if found else "no such parameter"
            raise ValueError(f"{where}.architecture: got {got}, allowed: {allowed}")
    if shapes:
        raise ValueError(
            f"{where}.architecture: got a model without {_shown(sorted(shapes))}, allowed: one "
            "with every parameter of the weights"
        )


def trains_new_head(model: nn.Module, new_head: Collection[str], where: str) -> None:
    """Check that an adapted model trains its new head. A method that trains nothing may.

    Args:
        model: As the method has adapted it.
        new_head: Last names of the modules that the task adds.
        where: File and name of the model's entry.

    Raises:
        ValueError: Something trains, and a module of the new head does not.
    """
    trained = [name for name, param in model.named_parameters() if param.requires_grad]
    for head in new_head if trained else ():
        if not any(head in name.split(".") for name in trained):
            raise ValueError(
                f"{where}.head: {head} is new and does not train, so it would stay random; "
                "allowed: modules that the task adds and the method trains"
            )


# The tokenizer ------------------------------------------------------------------------------------


def has_vocabulary(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Check that a tokenizer has words: transformers makes an empty one where there is no file.

    Args:
        tokenizer: As transformers loaded it.
        folder: Where from, for messages.

    Raises:
        ValueError: It has special tokens only.
    """
    words = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    if not words:
        raise ValueError(
            f"{folder}: got a tokenizer without a vocabulary, so each text would be unknown, "
            "allowed: a folder with the tokenizer's files; save it there with "
            "tokenizer.save_pretrained(FOLDER)"
        )


def no_fast_tokenizer(folder: Path, reason: str) -> str:
    """The sentence on a folder whose tokenizer transformers cannot load as a fast one."""
    return (
        f"{folder}: transformers makes no fast tokenizer of its files ({' '.join(reason.split())}),"
        " allowed: a folder with tokenizer.json; of a tokenizer in other files, make it where "
        "sentencepiece and tiktoken are installed, with "
        "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
    )


def covers(model: nn.Module, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Check that a model has an embedding for each token of a tokenizer.

    The model may have more: tables are padded, for speed.

    Args:
        model: With its table of embeddings.
        tokenizer: That of the snapshot.
        where: File and name of the model's entry.

    Raises:
        ValueError: The tokenizer has a token without an embedding.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise ValueError(
            f"{where}: the tokenizer has token ids up to {highest:,}, allowed: at most "
            f"{rows - 1:,}, for the table of embeddings has {rows:,} rows; use the tokenizer of "
            "these weights"
        )
