"""The roles that a method's `targets` name, on models with fused matrices and without."""

import pytest

from helpers.profiling import profile_request
from rankwise.core.config import ConfigError
from rankwise.study.resolve import resolve_method

METHOD = {"module": "lora", "optimizer": {"module": "adamw"}, "weights": "fp32", "dense": []}
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


@pytest.mark.parametrize(
    "model", ["tiny", "gpt2", "pythia_160m", "modernbert_base", "llama_3_2_3b"]
)
def test_all_linear_is_left_to_the_job(model: str) -> None:
    assert targets(model, given="all-linear") == ["all-linear"]
    assert targets(model, given=["all-linear"]) == ["all-linear"]


def test_all_linear_stands_alone() -> None:
    said = "targets: got 'all-linear, query', allowed: roles alone, or all-linear alone, without brackets"
    with pytest.raises(ConfigError, match=said):
        targets("tiny", given=["all-linear", "query"])


def test_a_rank_under_all_linear_is_at_most_the_shortest_side() -> None:
    override = {"lora": {"options": {"targets": "all-linear"}}}
    with pytest.raises(ConfigError, match=r"ranks of lora from 1 to 64 \(its query matrix\)"):
        profile_request("memory", "lora", model="tiny", rank=65, override=override)


@pytest.mark.parametrize("given", ["all", ["query"]])
def test_a_model_without_roles_is_told_how_to_get_them(given: object) -> None:
    model = {"hidden_size": 64, "modules": {}, "architecture": {}}
    method = {**METHOD, "options": {"targets": given}}
    with pytest.raises(ConfigError) as caught:
        resolve_method("mine", method, model, 4, "study: ranks")
    got = "all" if given == "all" else "query"
    assert str(caught.value) == (
        f"config/methods.yaml: mine.options.targets: got {got!r}, allowed: all-linear, since the model's entry names "
        "no module; `rankwise add model` lists the matrices of a model, and modules.ROLE.name in config/models.yaml "
        "names one"
    )
