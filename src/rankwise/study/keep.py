"""Which weights a training run keeps: `keep` of a study and of its training grids.

The choice is a part of the run's request, because the weights are a part of its result. Trials of a
search keep nothing. Standard library only.
"""

from rankwise.core import plugins
from rankwise.core.config import ConfigError
from rankwise.study import peft_settings
from rankwise.study.biases import unbiased
from rankwise.study.options import constant

ADAPTER, MERGED, NONE = KINDS = ("adapter", "merged", "none")


def resolved(
    wanted: str | None, name: str, method: dict, model: dict, where: tuple[str, str]
) -> str:
    """The weights that a run keeps.

    Args:
        wanted: The grid's `keep`, or else the study's; None if neither has one.
        name: The method's name in config/methods.yaml.
        method: Its resolved entry.
        model: The entry of the model that it adapts.
        where: File and key of `keep`, for messages.

    Returns:
        `adapter`, `merged` or `none`. If nothing is wanted, it is `adapter`, except for a method
        that trains the whole model, or that cannot keep an adapter.

    Raises:
        ConfigError: The method cannot keep what is wanted.
    """
    keeps = _constant(method, "KEEPS", ADAPTER)
    if keeps == "nothing":  # the model is the base
        return NONE
    refused = refusals(method, model)
    if wanted is None:
        return NONE if ADAPTER in refused else ADAPTER
    if wanted in refused:
        kinds = " or ".join([*allowed(method, model), NONE])
        raise ConfigError(
            *where,
            wanted,
            f"{kinds} with {name}, which {refused[wanted]}; put {name} into a grid with a `keep` "
            "of its own",
        )
    return wanted


def allowed(method: dict, model: dict) -> list[str]:
    """The kinds of weights that a method can keep.

    Args:
        method: Its resolved entry.
        model: The entry of the model that it adapts.
    """
    if _constant(method, "KEEPS", ADAPTER) == "nothing":
        return []
    refused = refusals(method, model)
    return [kind for kind in KINDS if kind != NONE and kind not in refused]


def refusals(method: dict, model: dict) -> dict[str, str]:
    """The kinds of weights that a method cannot keep, with reasons.

    Args:
        method: Its resolved entry.
        model: The entry of the model that it adapts.

    Returns:
        Kind -> the reason, the end of a sentence.
    """
    refused = {}
    start = method["options"].get("init")
    if _constant(method, "KEEPS", ADAPTER) == "model":
        refused[ADAPTER] = "trains the whole model and has no adapter"
    elif start in _constant(method, "CHANGES_BASE", ()) and method["weights"] != "fp32":
        stored = method["weights"]
        refused[ADAPTER] = f"starts by init {start} from a base that is then rounded to {stored}"
    if not _constant(method, "MERGES", True) or _is_peft_type(method, "NEVER_MERGED"):
        refused[MERGED] = "gives answers that no model of the base's own modules gives"
    elif place := _added_bias(method, model):
        refused[MERGED] = f"adds a bias to {place}, which transformers' {model['family']} has not"
    return refused


def _constant(method: dict, name: str, default: object) -> object:
    return constant(plugins.source_name("methods", method["module"]), name, default)


def _added_bias(method: dict, model: dict) -> str | None:
    """The name of a matrix that gets a bias, although the model's class has none there."""
    if not _is_peft_type(method, "TRAINS_BIASES"):
        return None
    return unbiased(model, method["options"]["targets"])


def _is_peft_type(method: dict, constant_name: str) -> bool:
    """Whether the method is a type of peft that a constant of `methods/peft.py` names."""
    if method["module"] != peft_settings.MODULE:
        return False
    return method["options"]["type"] in _constant(method, constant_name, ())
