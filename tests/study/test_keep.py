"""Which weights a study keeps: defaults, what a grid says, what a method cannot keep, what reruns."""

import pytest

from helpers.repository import ROOT
from rankwise.core.config import ConfigError
from rankwise.study.plan import Plan

GRID = {"models": ["tiny"], "datasets": ["generated_reviews"], "ranks": [4], "seeds": [0]}
STUDY = {"name": "keep", "question": "?", "device": "cpu", "schedule": {"epochs": 1}}


def plan(*grids: dict, **study: object) -> Plan:
    return Plan({**STUDY, **study, "train": [{**GRID, **grid} for grid in grids]}, ROOT)


def kept(found: Plan) -> dict[str, str]:
    """Method -> what its run keeps."""
    return {cell.method: found.grids.keep(cell) for cell in found.cells("train")}


def digests(found: Plan, measurement: str = "train") -> dict[str, str]:
    return {cell.folder: found.cell_digest(measurement, cell) for cell in found.cells(measurement)}


def test_an_adapter_is_kept_unless_the_whole_model_trains_or_nothing() -> None:
    adapters = ["lora", "hira", "head_only", "bitfit", "adapter_houlsby", "weight_reduction", "pissa", "prompt_tuning", "qlora", "adalora"]  # fmt: skip
    none = ["frozen", "full", "rsvd", "full_bf16", "lora_loftq"]
    assert kept(plan({"methods": adapters + none})) == {
        **dict.fromkeys(adapters, "adapter"),
        **dict.fromkeys(none, "none"),
    }


def test_a_grid_says_more_than_its_study() -> None:
    found = plan({"methods": ["lora"]}, {"methods": ["full"], "keep": "merged"}, keep="none")
    assert kept(found) == {"lora": "none", "full": "merged"}


def test_nothing_is_kept_of_a_model_that_does_not_train() -> None:
    assert kept(plan({"methods": ["frozen"]}, keep="merged")) == {"frozen": "none"}


REFUSED = [
    ("full", "adapter", {}, "merged or none with full, which trains the whole model and has no adapter"),
    ("prompt_tuning", "merged", {}, "adapter or none with prompt_tuning, which gives answers"),
    ("adapter_houlsby", "merged", {}, "adapter or none with adapter_houlsby, which gives answers"),
    ("lily", "merged", {}, "adapter or none with lily, which gives answers"),
    ("lora_loftq", "adapter", {}, "merged or none with lora_loftq, which starts by init loftq"),
    ("pissa", "adapter", {"weights": "bf16"}, "merged or none with pissa, which starts by init pissa"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "keep", "changes", "allowed"), REFUSED)
def test_what_a_method_cannot_keep_is_refused_while_planning(
    method: str, keep: str, changes: dict, allowed: str
) -> None:
    grid = {"methods": [method], "keep": keep}
    if changes:
        grid["override"] = {method: changes}
    with pytest.raises(ConfigError) as error:
        plan(grid)
    assert str(error.value).startswith(f"study: train.0.keep: got '{keep}', allowed: {allowed}")


@pytest.mark.parametrize(("model", "targets", "place"), [
    ("stories260k", ["value"], "v_proj"),
    ("llama_2_7b", ["value"], "v_proj"),
    ("qwen2_5_0_5b", ["all-linear"], "o_proj"),  # q, k and v have biases
    ("mistral_7b", ["query", "down"], "q_proj"),
])  # fmt: skip
def test_a_bias_that_transformers_would_drop_is_refused_while_planning(
    model: str, targets: list[str], place: str
) -> None:
    changes = {"options": {"targets": targets}}
    grid = {"models": [model], "methods": ["beft"], "override": {"beft": changes}}
    with pytest.raises(ConfigError) as error:
        plan({**grid, "datasets": ["wikitext2_files"], "keep": "merged"})
    family = {"qwen2_5_0_5b": "qwen2", "mistral_7b": "mistral"}.get(model, "llama")
    assert str(error.value).startswith(
        "study: train.0.keep: got 'merged', allowed: adapter or none with beft, which adds a bias "
        f"to {place}, which transformers' {family} has not"
    )


def test_a_bias_where_the_model_has_one_is_merged() -> None:
    assert kept(plan({"methods": ["beft"], "keep": "merged"})) == {"beft": "merged"}


def test_the_studys_own_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^study: keep: got 'adapter', allowed: merged or none"):
        plan({"methods": ["full"]}, keep="adapter")


def test_another_word_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"train.0.keep: got 'all', allowed: adapter, merged, none"
    ):
        plan({"methods": ["lora"], "keep": "all"})


def test_another_choice_reruns_the_runs_of_its_grid_alone() -> None:
    grids = [
        {"methods": ["lora"], "search": {"learning_rate_factors": [1, 3]}},
        {"methods": ["hira"]},
    ]
    before, after = plan(*grids), plan({**grids[0], "keep": "none"}, grids[1])
    changed = {name for name, digest in digests(before).items() if digests(after)[name] != digest}
    assert changed == {"tiny/generated_reviews/lora/r4/seed0"}
    assert digests(before, "trial") == digests(after, "trial") != {}
    assert digests(before, "predict") == digests(after, "predict") != {}


def test_the_default_is_the_same_request_as_the_word() -> None:
    grid = {"methods": ["lora"]}
    said = plan({**grid, "keep": "adapter"})
    assert digests(plan(grid)) == digests(said)
    assert said.request("train", said.cells("train")[0])["keep"] == "adapter"
