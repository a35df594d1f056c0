"""Which weights a training run keeps: `keep` of a study and of its training grids.

The choice is a part of the run's request, because the weights are a part of its result. Trials of a
search keep nothing. Standard library only.
"""

from rankwise.core import plugins
from rankwise.core.config import ConfigError
from rankwise.study import peft_settings
from rankwise.study.options import constant

ADAPTER, MERGED, NONE = KINDS = ("adapter", "merged", "none")


def resolved(wanted: str | None, name: str, method: dict, where: tuple[str, str]) -> str:
    """What a run keeps.

    Args:
        wanted: The grid's `keep`, or else the study's; None if neither has one.
        name: The method's name in config/methods.yaml.
        method: Its resolved entry.
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
    refused = refusals(method)
    if wanted is None:
        return NONE if ADAPTER in refused else ADAPTER
    if wanted in refused:
        kinds = " or ".join([*allowed(method), NONE])
        raise ConfigError(
            *where,
            wanted,
            f"{kinds} with {name}, which {refused[wanted]}; put {name} into a grid with a `keep` "
            "of its own",
        )
    return wanted


def allowed(method: dict) -> list[str]:
    """The kinds of weights that a method can keep.

    Args:
        method: Its resolved entry.
    """
    if _constant(method, "KEEPS", ADAPTER) == "nothing":
        return []
    refused = refusals(method)
    return [kind for kind in KINDS if kind != NONE and kind not in refused]


def refusals(method: dict) -> dict[str, str]:
    """What a method cannot keep, and why.

    Args:
        method: Its resolved entry.

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
    if not _constant(method, "MERGES", True) or _is_never_merged(method):
        refused[MERGED] = "gives answers that no model of the base's own modules gives"
    return refused


def _constant(method: dict, name: str, default: object) -> object:
    return constant(plugins.source_name("methods", method["module"]), name, default)


def _is_never_merged(method: dict) -> bool:
    """Whether the method is a type of peft whose answer is no product with a fixed matrix."""
    if method["module"] != peft_settings.MODULE:
        return False
    return method["options"]["type"] in _constant(method, "NEVER_MERGED", ())
