"""Which matrices have no bias: the table says what transformers' classes have."""

import copy

import pytest

from helpers.architectures import entry
from helpers.model_folders import FAMILIES
from rankwise.models import build
from rankwise.study.biases import UNBIASED, unbiased


def with_bias(model: dict) -> dict[str, bool]:
    """Role -> whether its matrices have a bias in a model that transformers builds."""
    built = build.from_shapes(model, "language_modelling", 0)
    found = {}
    for role, module in model["modules"].items():
        name = f".{module['name']}"
        layers = [layer for full, layer in built.named_modules() if f".{full}".endswith(name)]
        found[role] = all(getattr(layer, "bias", None) is not None for layer in layers)
    return found


DECODERS = [family for family, (saved, _) in FAMILIES.items() if saved == "AutoModelForCausalLM"]


@pytest.mark.parametrize("family", DECODERS)
def test_the_table_says_what_transformers_builds(family: str) -> None:
    """Without the configuration's keys, and with them."""
    model = entry(family)
    keys = sorted({key for key in UNBIASED.get(family, {}).values() if key})
    for values in ({}, dict.fromkeys(keys, True)):
        changed = copy.deepcopy(model)
        changed["architecture"] |= values
        said = {role: unbiased(changed, [role]) is None for role in changed["modules"]}
        assert said == with_bias(changed)


def test_all_linear_are_all_matrices_of_the_entry() -> None:
    assert unbiased(entry("qwen2"), ["all-linear"]) == "o_proj"
    assert unbiased(entry("gpt2"), ["all-linear"]) is None
