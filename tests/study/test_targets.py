"""The roles that a method's `targets` name, on models with fused matrices and without."""

import pytest

from helpers.profiling import profile_request
from rankwise.core.config import ConfigError

ROLES = {
    "tiny": ["query", "key", "value", "output", "up", "down"],
    "gpt2": ["attention", "output", "up", "down"],
}


def targets(model: str, method: str = "lora", given: object = "all") -> list[str]:
    override = {method: {"options": {"targets": given}}}
    sizes = {"model": model, "sequence_length_tokens": 16, "override": override}
    return profile_request("memory", method, **sizes)["method"]["options"]["targets"]


@pytest.mark.parametrize("model", ROLES)
def test_all_is_every_role_of_the_model_in_the_entrys_order(model: str) -> None:
    assert targets(model) == ROLES[model]
    assert targets(model) == targets(model, given=ROLES[model])


def test_all_is_no_role_of_its_own() -> None:
    with pytest.raises(ConfigError, match="targets: got 'all', allowed: down, key, output"):
        targets("tiny", given=["all"])


def test_a_role_inside_a_fused_matrix_is_told_with_that_matrix() -> None:
    nearest = "nearest: 'attention', one matrix that holds query, key, value"
    with pytest.raises(ConfigError, match=nearest):
        targets("gpt2", given=["query", "value"])
    with pytest.raises(ConfigError, match="got 'gate', allowed: attention, down, output, up"):
        targets("gpt2", given=["gate"])
