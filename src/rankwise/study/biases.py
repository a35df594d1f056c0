"""Which matrices of a model have no bias in transformers' class of its family.

transformers drops a tensor that the class has not. So a bias that a method adds to such a matrix
could not be read from a merged model. Families that are not listed have biases, or are checked when
a job has built the model (`training/keeping.py`).

Source: the constructors in transformers/models/FAMILY/modeling_FAMILY.py.

Standard library only.
"""

from rankwise.core.targets import ALL_LINEAR

_ATTENTION = ("query", "key", "value", "attention", "output")
_FEED_FORWARD = ("gate", "up", "gate_up", "down")
NEVER = ""  # no key of the configuration adds a bias


def _without(attention: str, feed_forward: str) -> dict[str, str]:
    """Role -> the key of the configuration that adds a bias to its matrices."""
    return dict.fromkeys(_ATTENTION, attention) | dict.fromkeys(_FEED_FORWARD, feed_forward)


# Family -> role without a bias -> the key of the configuration that adds one, or NEVER.
UNBIASED = {
    "gemma": _without("attention_bias", NEVER),
    "gemma2": _without("attention_bias", NEVER),
    "gemma3_text": _without("attention_bias", NEVER),
    "llama": _without("attention_bias", "mlp_bias"),
    "mistral": _without(NEVER, NEVER),
    "mixtral": _without(NEVER, NEVER),
    "modernbert": _without("attention_bias", "mlp_bias"),
    "olmo2": _without("attention_bias", NEVER),
    "phi3": _without(NEVER, NEVER),
    "qwen2": dict.fromkeys(("output", *_FEED_FORWARD), NEVER),
    "qwen3": _without("attention_bias", NEVER),
    "t5": _without(NEVER, NEVER),
}


def unbiased(model: dict, targets: list[str]) -> str | None:
    """The name of a targeted matrix that is known to have no bias; None if there is none.

    Args:
        model: An entry of config/models.yaml.
        targets: Roles of matrices, or all-linear.
    """
    key_by_role = UNBIASED.get(model["family"], {})
    roles = list(model["modules"]) if ALL_LINEAR in targets else targets
    for role in roles:
        if role not in key_by_role or role not in model["modules"]:
            continue
        key = key_by_role[role]
        if key == NEVER or not model["architecture"].get(key):
            return model["modules"][role]["name"]
    return None
