"""An entry's `architecture` against the configuration class of its family, before any job.

transformers takes a key that it does not know, and builds the model with the default of the one
that was meant. So unknown keys, values of another type and sizes that contradict each other are
refused here, where transformers is installed; each job compares the model that it has built.
Standard library only.
"""

from rankwise.core import annotations, family_configs
from rankwise.core.config import ConfigError
from rankwise.core.family_configs import Keys

FILE = "config/models.yaml"
WIDTH, HEADS, KEY_HEADS = "hidden_size", "num_attention_heads", "num_key_value_heads"
SIZES = (WIDTH, HEADS, KEY_HEADS, "num_hidden_layers", "vocab_size", "intermediate_size")
# Of these a configuration may have null: as many as heads, or four times the width.
MAY_BE_NULL = (KEY_HEADS, "intermediate_size")
HEAD_WIDTHS = ("head_dim", "d_kv")  # families with one of these choose a head's width freely


def checked(name: str, entry: dict) -> dict:
    """A model's entry, with integers in its architecture where 3.0 stands for 3.

    Args:
        name: The entry's name.
        entry: Of config/models.yaml.

    Raises:
        ConfigError: A key is none of the family's, a value is of another type, or a size does not
            fit another.
    """
    known = family_configs.keys(entry["family"])
    if known is None:
        return entry
    where = f"{name}.architecture"
    architecture = {}
    for key, value in entry["architecture"].items():
        if not known.knows(key):
            allowed = {*known.annotations, *known.aliases, *known.older}
            raise ConfigError(FILE, f"{where} of family {entry['family']}", key, allowed)
        architecture[key] = _value(f"{where}.{key}", value, known.annotations.get(known.own(key)))
    _check_sizes(name, {**entry, "architecture": architecture}, known)
    return {**entry, "architecture": architecture}


def _value(where: str, value: object, annotation: str | None) -> object:
    """A value of the architecture, of the type that its key has."""
    part = annotations.supported_part(annotation) if annotation else None
    is_whole_union = part == annotation  # of `int | RopeParameters` other values are right, too
    if value is None or part is None or not (is_whole_union or annotations.accepts(part, value)):
        return value
    if not annotations.accepts(part, value):
        raise ConfigError(FILE, where, value, annotations.in_words(part))
    return annotations.converted(part, value)


def _check_sizes(name: str, entry: dict, known: Keys) -> None:
    """Check that sizes are at least 1, and fit each other and the entry's own."""
    architecture, where = entry["architecture"], f"{name}.architecture"
    given = {}
    for size in SIZES:
        key = next((key for key in (known.own(size), size) if key in architecture), None)
        if key and architecture[key] is None and size not in MAY_BE_NULL:
            raise ConfigError(FILE, f"{where}.{key}", None, "an integer of at least 1")
        if key and isinstance(architecture[key], int):
            given[size] = (f"{where}.{key}", architecture[key])
            if architecture[key] < 1:
                raise ConfigError(FILE, *given[size], "at least 1")
    width = given.get(WIDTH)
    if width and width[1] != entry["hidden_size"]:
        allowed = f"{width[1]}, as {width[0]} says"
        raise ConfigError(FILE, f"{name}.hidden_size", entry["hidden_size"], allowed)
    if width:
        _check_shapes(name, entry["modules"], *width)
    if HEADS not in given:
        return
    key, heads = given[HEADS]
    if width and not set(HEAD_WIDTHS) & set(known.annotations) and width[1] % heads:
        raise ConfigError(FILE, key, heads, f"a divisor of {width[0]}, which is {width[1]}")
    if KEY_HEADS in given and heads % given[KEY_HEADS][1]:
        raise ConfigError(FILE, *given[KEY_HEADS], f"a divisor of {key}, which is {heads}")


def _check_shapes(name: str, modules: dict[str, dict], key: str, width: int) -> None:
    """Check that some matrix reads or writes the width. Not all do: ALBERT's embeddings do not."""
    if modules and not any(width in module["shape"] for module in modules.values()):
        role, module = next(iter(modules.items()))
        allowed = f"a matrix with a side of {width}, as {key} says"
        raise ConfigError(FILE, f"{name}.modules.{role}.shape", module["shape"], allowed)
