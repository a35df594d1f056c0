"""Searches: equal budgets, requests that move only with what they hold, and a choice on the selection slice alone."""

import copy
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rankwise.study.plan
from helpers.repository import ROOT
from helpers.searched import GRID, RATES, STUDY, planned, write_search
from helpers.stored import finish
from rankwise.core import provenance
from rankwise.core.config import ConfigError
from rankwise.study import jobs, outputs, search_choice
from rankwise.study.plan import Plan


@pytest.fixture(autouse=True, scope="module")
def read_once() -> Iterator[None]:
    """The library is the same for all of these tests, and takes longer to read than most of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rankwise.study.plan, "library", functools.cache(rankwise.study.plan.library))
        yield


def trials(plan: Plan, method: str, rank: int) -> list[str]:
    return list(
        dict.fromkeys(c.trial for c in plan.cells("trial") if (c.method, c.rank) == (method, rank))
    )


# What a user might get wrong -> what the sentence must hold.
WRONG = {
    "unequal budgets": (
        {"methods": {"lora": {"options": {"alpha": [4, 8, 16]}}}},
        ["train.0.search: got 'full 3, lora 9, rsvd 3'", "as many trials for each"],
    ),
    "an option that one method lacks": (
        {"options": {"alpha": [4, 8]}},
        ["train.0.search.options: got 'alpha', allowed: what full has (none)", "methods.NAME"],
    ),
    "a misspelt option": (
        {"methods": {"rsvd": {"optimizer": {"scal": [1.0]}}}},
        ["train.0.search.optimizer: got 'scal', allowed: what rsvd has (", "scale"],
    ),
    "the rank": ({"methods": {"lora": {"options": {"rank": [4]}}}}, ["search.options: got 'rank'", "what lora has (alpha, "]),
    "a value of the wrong type": ({"methods": {"lora": {"options": {"alpha": ["much"]}}}}, ["config/searched.yaml: train.0.search.methods.lora.options.alpha: got 'much'"]),
    "both kinds of rates": ({"learning_rate_factors": [1, 3]}, ["train.0.search: got 'learning_rates and learning_rate_factors'"]),
    "trials that are the same": (
        {"methods": {"lora": {"learning_rates": [1.0e-3], "options": {"alpha": ["rank", 2, 8]}}}},
        ["got 'lr0.001-alpharank, lr0.001-alpha2, lr0.001-alpha8', allowed: trials of tiny/generated_reviews/lora/r2 that differ"],
    ),
    "a method that the grid has not": ({"methods": {"lroa": {}}}, ["train.0.search.methods: got 'lroa'", "nearest: 'lora'"]),
    "a rate of zero": ({"learning_rates": [0.0]}, ["train.0.search.learning_rates.0: got 0.0, allowed: above 0"]),
    "a word that is not auto": ("automatic", ["config/searched.yaml: train.0.search: got 'automatic', allowed: auto, or a mapping"]),
    "a misspelt key": ({"learning_rate": [1.0e-3]}, ["train.0.search: got 'learning_rate'", "nearest: 'learning_rates'"]),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_one_sentence(what: str) -> None:
    search, wanted = WRONG[what]
    with pytest.raises(ConfigError) as caught:
        planned(search if isinstance(search, str) else {"learning_rates": RATES, **search})
    assert all(part in str(caught.value) for part in wanted), caught.value
    assert "\n" not in str(caught.value)


def test_what_is_not_trained_is_not_searched() -> None:
    plan = planned(methods=["frozen", "full"])
    assert {cell.method for cell in plan.cells("trial")} == {"full"}
    cells = {cell.method: cell for cell in plan.cells("train")}
    assert [bool(outputs.selected(plan, cells[name])) for name in ("frozen", "full")] == [
        False,
        True,
    ]
    assert plan.request("train", cells["frozen"])["method"]["learning_rate"] == 0


def test_a_schedule_of_trials_is_held_to_what_a_method_can_do() -> None:
    own = {"methods": ["lomo"], "schedule": {"max_gradient_norm": None}}
    planned(**own)
    with pytest.raises(
        ConfigError,
        match=r"train\.0\.search\.schedule\.accumulation_steps: got 2, allowed: 1 with lomo",
    ):
        planned({"learning_rates": RATES, "schedule": {"accumulation_steps": 2}}, **own)


@pytest.mark.parametrize("first", [True, False])
def test_the_seeds_of_a_curve_are_all_searched_for_or_none(first: bool) -> None:
    other = {name: value for name, value in GRID.items() if name != "search"} | {"seeds": [2]}
    with pytest.raises(
        ConfigError,
        match=r"train\.1: got 'tiny/generated_reviews/full/r0', allowed: a curve with a search",
    ):
        Plan({**STUDY, "train": [GRID, other] if first else [other, GRID]}, ROOT)


def test_auto_gives_every_method_six_multiples_of_its_own_rate() -> None:
    """Entries: full 2e-5, lora 2e-4."""
    plan = planned("auto", methods=["full", "lora"])
    tried = {
        (cell.method, plan.request("trial", cell)["trial"]["learning_rate"])
        for cell in plan.cells("trial")
    }
    assert tried == {
        *(("full", rate) for rate in (2e-6, 6e-6, 2e-5, 6e-5, 2e-4, 6e-4)),
        *(("lora", rate) for rate in (2e-5, 6e-5, 2e-4, 6e-4, 2e-3, 6e-3)),
    }


def test_every_curve_has_the_same_budget() -> None:
    """The same rates for all, or multiples of each method's own; a method with options has fewer rates."""
    plan = planned()
    assert {
        (c.method, c.rank): len(trials(plan, c.method, c.rank)) for c in plan.cells("trial")
    } == dict.fromkeys([("full", 0), ("lora", 2), ("lora", 4), ("rsvd", 2), ("rsvd", 4)], 3)
    assert {c.seed for c in plan.cells("trial")} == {5, 6}
    own = planned({"learning_rate_factors": [0.1, 1, 10, 100], "methods": {
        "lora": {"learning_rates": [1.0e-3, 1.0e-2], "options": {"alpha": ["rank", 16]}},
        "rsvd": {"learning_rate_factors": [1, 10], "optimizer": {"scale": [0.5, 1.0]}},
    }})  # fmt: skip
    assert trials(own, "full", 0) == ["lr2e-06", "lr2e-05", "lr0.0002", "lr0.002"]
    assert trials(own, "lora", 4) == [
        f"lr{r}-alpha{a}" for r in (0.001, 0.01) for a in ("rank", 16)
    ]
    cell = next(c for c in own.cells("trial") if c.trial == "lr0.001-alpharank" and c.rank == 4)
    request = own.request("trial", cell)
    assert request["trial"] == {"learning_rate": 1e-3, "options": {"alpha": 4}, "optimizer": {}}
    assert request["method"]["options"]["alpha"] == 4
    assert {len(trials(own, c.method, c.rank)) for c in own.cells("trial")} == {4}


def digests(plan: Plan, measurement: str) -> dict[str, str]:
    return {
        c.folder: provenance.digest(plan.request(measurement, c)) for c in plan.cells(measurement)
    }


def test_a_new_value_anywhere_is_a_new_trial_and_moves_no_other() -> None:
    old, new = (
        planned(),
        planned({**GRID["search"], "learning_rates": [1.0e-4, *RATES[:1], 0.1, *RATES[1:]]}),
    )
    before, after = digests(old, "trial"), digests(new, "trial")
    assert before.items() <= after.items()
    assert len(after) / 5 == len(before) / 3
    assert not set(digests(old, "train").values()) & set(digests(new, "train").values())


def test_the_order_of_values_and_the_rate_that_no_trial_uses_change_nothing() -> None:
    old = planned()
    new = planned(
        {**GRID["search"], "learning_rates": RATES[::-1]}, override={"lora": {"learning_rate": 0.5}}
    )
    assert digests(old, "trial") == digests(new, "trial")
    assert digests(old, "train") == digests(new, "train")


def test_a_grid_without_a_search_has_the_requests_that_it_had() -> None:
    plain = {name: value for name, value in GRID.items() if name != "search"}
    alone = Plan({**STUDY, "train": [plain]}, ROOT)
    other = {**GRID, "methods": ["head_only"]}
    both = Plan({**STUDY, "train": [plain, other]}, ROOT)
    assert digests(alone, "train").items() <= digests(both, "train").items()
    request = alone.request("train", alone.cells("train")[0])
    assert set(request["inputs"]) == {"dataset", "model"}
    assert not {"trial", "search"} & set(request)
    assert "rankwise.study.search_choice" not in request["code"]
    assert "search" not in outputs.tables(alone)
    assert "sensitivity" not in outputs.figures(alone)
    assert not [file for file in jobs.targets(alone) if Path(file).stem == "search"]
    assert not [file for file in jobs.targets(alone) if "search" in Path(file).parts]
    assert {"search", "sensitivity"} <= {*outputs.tables(both), *outputs.figures(both)}


def test_a_trial_plans_for_the_selection_slice_and_a_run_leaves_open_what_is_searched() -> None:
    plan = planned()
    trial, run = (
        plan.request("trial", plan.cells("trial")[0]),
        plan.request("train", plan.cells("train")[0]),
    )
    assert (trial["dataset"]["report_split"], run["dataset"]["report_split"]) == (
        "selection",
        "validation",
    )
    assert (trial["schedule"]["updates"], run["schedule"]["updates"]) == (3, 6)
    assert "learning_rate" not in run["method"]
    assert run["inputs"]["search"] == provenance.digest(plan.choice(plan.cells("train")[0].curve))


# The choice -----------------------------------------------------------------------------------------------------------


def test_the_best_is_the_lowest_mean_over_the_seeds() -> None:
    assert (
        search_choice.best([("a", 0.1, 1.0), ("a", 0.1, 3.0), ("b", 0.2, 1.9), ("b", 0.2, 1.9)])
        == "b"
    )


def test_of_equals_the_lowest_rate_is_chosen_whatever_their_order() -> None:
    tried = [("a", 0.1, 1.0), ("z", 0.01, 1.0), ("y", 0.01, 1.0)]
    assert search_choice.best(tried) == search_choice.best(tried[::-1]) == "y"


def test_a_trial_that_failed_once_is_out_and_nothing_is_left_if_all_did() -> None:
    assert (
        search_choice.best([("a", 0.1, 0.1), ("a", 0.1, None), ("b", 0.2, 5.0), ("b", 0.2, 5.0)])
        == "b"
    )
    assert search_choice.best([("a", 0.1, None), ("b", 0.2, None)]) is None


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Plan, dict]]:
    """`helpers.searched.write_search`, called in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return write_search


def test_the_planted_best_is_chosen_and_a_run_gets_it(tried) -> None:
    """At 3e-3 for full, though one of its seeds is the best at 1e-2; at 1e-2 for the others."""
    peak = {"full": 3e-3}
    plan, found = tried(
        lambda method, rate, seed: (
            abs(math.log(rate / peak.get(method, 1e-2))) + (rate == 1e-2) * (5.5 - seed)
        )
    )
    assert {one["request"]["cell"]["method"]: one["selected"]["learning_rate"] for one in found.values()} == {
        "full": 3e-3, "lora": 1e-2, "rsvd": 1e-2,
    }  # fmt: skip
    assert all(len(one["trials"]) == 6 for one in found.values())
    cell = next(c for c in plan.cells("train") if c.method == "lora")
    request, says = search_choice.settle(plan.request("train", cell))
    assert request["method"]["learning_rate"] == says["selected"]["learning_rate"] == 1e-2
    assert {**request["method"], "learning_rate": None} == {
        **plan.method("train", cell),
        "learning_rate": None,
    }


def test_a_choice_of_another_plan_is_refused_and_so_is_a_trial(tried) -> None:
    plan, _ = tried(lambda *_: 1.0)
    request = copy.deepcopy(plan.request("train", plan.cells("train")[0]))
    request["inputs"]["search"] = "0" * 16
    with pytest.raises(
        FileNotFoundError, match=r"0000/selected\.json: not in the store; run snakemake again"
    ):
        search_choice.settle(request)
    choice = copy.deepcopy(plan.choice(plan.cells("train")[0].curve))
    choice["trials"][0]["digest"] = "0" * 16
    with pytest.raises(
        ValueError, match=r"trial\.json: it answers request \w+; allowed: a result of request 0000"
    ):
        search_choice.choose(choice)


def test_the_table_has_a_row_a_trial_and_seed_and_marks_what_was_chosen(tried) -> None:
    from rankwise.analysis import tidy

    plan, found = tried(lambda method, rate, seed: "diverged" if rate == 1e-2 else rate * seed)
    frame = tidy.trials([tidy.Planned(Path(job.path)) for job in jobs.cell_jobs(plan, "trial")])
    assert len(frame) == len(plan.cells("trial")) == 30
    assert {"split", "selection_loss_nats", "learning_rate", "updates", "reason"} <= set(frame)
    assert "eval_loss_nats" not in frame
    chosen = (
        frame[frame["selected"]].groupby(["method", "rank"])["trial"].agg(set).map(sorted).to_dict()
    )
    assert chosen == {
        (one["request"]["cell"]["method"], one["request"]["cell"]["rank"]): [
            one["selected"]["trial"]
        ]
        for one in found.values()
    }
    assert set(frame.loc[frame["learning_rate"] == 1e-2, "status"]) == {"diverged"}


def test_options_tried_are_columns(tmp_path: Path) -> None:
    from rankwise.analysis import tidy

    plan = planned(
        {"learning_rates": [1.0e-3], "options": {"alpha": ["rank", 16]}}, methods=["lora"]
    )
    tried = [
        tidy.Planned(finish(tmp_path, job, metrics={"eval_loss_nats": 1.0}))
        for job in jobs.cell_jobs(plan, "trial")
    ]
    assert list(tidy.trials(tried)["options_alpha"]) == [2, 16, 4, 16]
