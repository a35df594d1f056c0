"""Whole models that a study does not keep are named with their size."""

from helpers.repository import ROOT
from rankwise.audit.unkept import unkept
from rankwise.cli.plan_text import unkept as lines
from rankwise.study.plan import Plan

GRID = {"models": ["tiny"], "datasets": ["generated_reviews"], "ranks": [4], "seeds": [0, 1]}


def plan(*grids: dict, **study: object) -> Plan:
    whole = {"name": "s", "question": "?", "device": "cpu", "schedule": {"updates": 9}, **study}
    return Plan({**whole, "train": [{**GRID, **grid} for grid in grids]}, ROOT)


def tiny_bytes() -> int:
    """Of the model `tiny`: its embedding, and six matrices in each layer, in fp32."""
    entry = plan({"methods": ["full"]}).library["models"]["tiny"]
    sizes = entry["architecture"]
    width, inner = sizes["dim"], sizes["hidden_dim"]
    layer = 4 * width * width + 2 * width * inner
    return 4 * (sizes["vocab_size"] * width + sizes["n_layers"] * layer)


def test_runs_that_train_the_whole_model_are_named_with_their_size() -> None:
    """Not those that keep an adapter, and not a model in which nothing trains."""
    found = unkept(plan({"methods": ["full", "lora", "frozen", "rsvd"]}))
    size = tiny_bytes()
    assert found == [{"model": "tiny", "methods": ["full", "rsvd"], "runs": 4, "bytes": size}]
    (line,) = lines(found)
    assert line.startswith("weights not kept: tiny, 4 runs (full, rsvd), about ")
    assert line.endswith(" KiB a run; `keep: merged` in a training grid keeps them")


def test_a_base_in_bf16_takes_half() -> None:
    (found,) = unkept(plan({"methods": ["full_bf16"]}))
    assert found["bytes"] == tiny_bytes() / 2


def test_what_a_study_says_is_not_told_again() -> None:
    assert unkept(plan({"methods": ["full"], "keep": "none"})) == []
    assert unkept(plan({"methods": ["full"]}, keep="none")) == []
    assert unkept(plan({"methods": ["full"], "keep": "merged"})) == []
    assert lines([]) == []
