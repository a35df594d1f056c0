"""Searches: equal budgets, a choice on the selection slice alone, and exactly the reruns that an edit asks for."""

import copy
import functools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, copy_repository, edit, run_snakemake

import rankwise.plan
from rankwise import outputs, provenance, result, settled
from rankwise.config import ConfigError
from rankwise.plan import Plan

RATES = [1.0e-3, 1.0e-2, 3.0e-3]
GRID = {
    "models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["full", "lora", "rsvd"], "ranks": [2, 4], "seeds": [0, 1],
    "search": {"learning_rates": RATES, "seeds": [5, 6], "schedule": {"updates": 3}},
}  # fmt: skip
STUDY = {
    "name": "searched", "question": "?", "device": "cpu",
    "schedule": {"updates": 6, "batch_size": 16, "eval_batch_size": 64, "evaluate_every_updates": 2},
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def read_once() -> Iterator[None]:
    """The library is the same for all of these tests, and takes longer to read than most of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rankwise.plan, "library", functools.cache(rankwise.plan.library))
        yield


def planned(search: dict | None = None, also: tuple[dict, ...] = (), **changes: object) -> Plan:
    """The plan of a study with one grid that searches, and others beside it."""
    grid = {**GRID, **({"search": search} if search is not None else {}), **changes}
    return Plan({**STUDY, "train": [grid, *also]}, ROOT, "config/searched.yaml")


def trials(plan: Plan, method: str, rank: int) -> list[str]:
    return list(dict.fromkeys(c.trial for c in plan.cells("trial") if (c.method, c.rank) == (method, rank)))


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
    "a value of the wrong type": ({"methods": {"lora": {"options": {"alpha": ["much"]}}}}, ["lora.options.alpha: got 'much'"]),
    "both kinds of rates": ({"learning_rate_factors": [1, 3]}, ["train.0.search: got 'learning_rates and learning_rate_factors'"]),
    "trials that are the same": (
        {"methods": {"lora": {"learning_rates": [1.0e-3], "options": {"alpha": ["rank", 2, 8]}}}},
        ["got 'lr0.001-alpharank, lr0.001-alpha2, lr0.001-alpha8', allowed: trials of tiny/generated_reviews/lora/r2 that differ"],
    ),
    "a method that the grid has not": ({"methods": {"lroa": {}}}, ["train.0.search.methods: got 'lroa'", "nearest: 'lora'"]),
    "a rate of zero": ({"learning_rates": [0.0]}, ["train.0.search.learning_rates.0: got 0.0, allowed: above 0"]),
    "a misspelt key": ({"learning_rate": [1.0e-3]}, ["train.0.search: got 'learning_rate'", "nearest: 'learning_rates'"]),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_one_sentence(what: str) -> None:
    search, wanted = WRONG[what]
    with pytest.raises(ConfigError) as caught:
        planned({"learning_rates": RATES, **search})
    assert all(part in str(caught.value) for part in wanted), caught.value
    assert "\n" not in str(caught.value)


def test_what_is_not_trained_is_not_searched() -> None:
    plan = planned(methods=["frozen", "full"])
    assert {cell.method for cell in plan.cells("trial")} == {"full"}
    cells = {cell.method: cell for cell in plan.cells("train")}
    assert [bool(outputs.selected(plan, cells[name])) for name in ("frozen", "full")] == [False, True]
    assert plan.request("train", cells["frozen"])["method"]["learning_rate"] == 0


def test_a_schedule_of_trials_is_held_to_what_a_method_can_do() -> None:
    own = {"methods": ["lomo"], "schedule": {"max_gradient_norm": None}}
    planned(**own)
    with pytest.raises(ConfigError, match=r"train\.0\.search\.schedule\.accumulation_steps: got 2, allowed: 1 with lomo"):
        planned({"learning_rates": RATES, "schedule": {"accumulation_steps": 2}}, **own)


@pytest.mark.parametrize("first", [True, False])
def test_the_seeds_of_a_curve_are_all_searched_for_or_none(first: bool) -> None:
    other = {name: value for name, value in GRID.items() if name != "search"} | {"seeds": [2]}
    with pytest.raises(ConfigError, match=r"train\.1: got 'tiny/generated_reviews/full/r0', allowed: a curve with a search"):
        Plan({**STUDY, "train": [GRID, other] if first else [other, GRID]}, ROOT)


def test_every_curve_has_the_same_budget() -> None:
    """The same rates for all, or multiples of each method's own; a method with options has fewer rates."""
    plan = planned()
    assert {(c.method, c.rank): len(trials(plan, c.method, c.rank)) for c in plan.cells("trial")} == dict.fromkeys(
        [("full", 0), ("lora", 2), ("lora", 4), ("rsvd", 2), ("rsvd", 4)], 3
    )
    assert {c.seed for c in plan.cells("trial")} == {5, 6}
    own = planned({"learning_rate_factors": [0.1, 1, 10, 100], "methods": {
        "lora": {"learning_rates": [1.0e-3, 1.0e-2], "options": {"alpha": ["rank", 16]}},
        "rsvd": {"learning_rate_factors": [1, 10], "optimizer": {"scale": [0.5, 1.0]}},
    }})  # fmt: skip
    assert trials(own, "full", 0) == ["lr2e-06", "lr2e-05", "lr0.0002", "lr0.002"]
    assert trials(own, "lora", 4) == [f"lr{r}-alpha{a}" for r in (0.001, 0.01) for a in ("rank", 16)]
    cell = next(c for c in own.cells("trial") if c.trial == "lr0.001-alpharank" and c.rank == 4)
    request = own.request("trial", cell)
    assert request["trial"] == {"learning_rate": 1e-3, "options": {"alpha": 4}, "optimizer": {}}
    assert request["method"]["options"]["alpha"] == 4
    assert {len(trials(own, c.method, c.rank)) for c in own.cells("trial")} == {4}


def digests(plan: Plan, measurement: str) -> dict[str, str]:
    return {plan.path(measurement, c): provenance.digest(plan.request(measurement, c)) for c in plan.cells(measurement)}


def test_a_new_value_anywhere_is_a_new_trial_and_moves_no_other() -> None:
    old, new = planned(), planned({**GRID["search"], "learning_rates": [1.0e-4, *RATES[:1], 0.1, *RATES[1:]]})
    before, after = digests(old, "trial"), digests(new, "trial")
    assert before.items() <= after.items()
    assert len(after) / 5 == len(before) / 3
    assert not set(digests(old, "train").values()) & set(digests(new, "train").values())


def test_the_order_of_values_and_the_rate_that_no_trial_uses_change_nothing() -> None:
    old = planned()
    new = planned({**GRID["search"], "learning_rates": RATES[::-1]}, override={"lora": {"learning_rate": 0.5}})
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
    assert "rankwise.settled" not in request["code"]
    assert "search" not in outputs.tables(alone)
    assert "sensitivity" not in outputs.figures(alone)
    assert not [file for file in outputs.targets(alone) if "/search" in file]
    assert {"search", "sensitivity"} <= {*outputs.tables(both), *outputs.figures(both)}


def test_a_trial_plans_for_the_selection_slice_and_a_run_leaves_open_what_is_searched() -> None:
    plan = planned()
    trial, run = plan.request("trial", plan.cells("trial")[0]), plan.request("train", plan.cells("train")[0])
    assert (trial["dataset"]["report_split"], run["dataset"]["report_split"]) == ("selection", "validation")
    assert (trial["schedule"]["updates"], run["schedule"]["updates"]) == (3, 6)
    assert "learning_rate" not in run["method"]
    assert run["inputs"]["search"] == provenance.digest(plan.choice(plan.cells("train")[0].curve))


# The choice -----------------------------------------------------------------------------------------------------------


def test_the_best_is_the_lowest_mean_over_the_seeds() -> None:
    assert settled.best([("a", 0.1, 1.0), ("a", 0.1, 3.0), ("b", 0.2, 1.9), ("b", 0.2, 1.9)]) == "b"


def test_of_equals_the_lowest_rate_is_chosen_whatever_their_order() -> None:
    tried = [("a", 0.1, 1.0), ("z", 0.01, 1.0), ("y", 0.01, 1.0)]
    assert settled.best(tried) == settled.best(tried[::-1]) == "y"


def test_a_trial_that_failed_once_is_out_and_nothing_is_left_if_all_did() -> None:
    assert settled.best([("a", 0.1, 0.1), ("a", 0.1, None), ("b", 0.2, 5.0), ("b", 0.2, 5.0)]) == "b"
    assert settled.best([("a", 0.1, None), ("b", 0.2, None)]) is None


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Plan, dict]]:
    """Write the results of all trials: losses by (method, learning rate), or a status; then every choice."""
    monkeypatch.chdir(tmp_path)

    def write(outcome: Callable[[str, float, int], float | str]) -> tuple[Plan, dict]:
        plan = planned()
        for cell in plan.cells("trial"):
            request = plan.request("trial", cell)
            found = outcome(cell.method, request["trial"]["learning_rate"], cell.seed)
            ok = {"metrics": {"eval_loss_nats": found, "updates": 3}, "split": "selection"}
            bad = {"status": found, "reason": f"because of {cell.trial}"}
            result.write(Path(plan.path("trial", cell)), request, bad if isinstance(found, str) else ok, {})
        for curve in dict.fromkeys(cell.curve for cell in plan.cells("trial")):
            path = Path(f"results/search/{curve.folder}/selected.json")
            result.write(path, plan.choice(curve), settled.choose(plan.choice(curve)), {})
        return plan, {path: result.read(path) for path in Path("results/search").rglob("selected.json")}

    return write


def test_the_planted_best_is_chosen_and_a_run_gets_it(tried) -> None:
    """At 3e-3 for full, though one of its seeds is the best at 1e-2; at 1e-2 for the others."""
    peak = {"full": 3e-3}
    plan, found = tried(lambda method, rate, seed: abs(math.log(rate / peak.get(method, 1e-2))) + (rate == 1e-2) * (5.5 - seed))
    assert {one["request"]["cell"]["method"]: one["selected"]["learning_rate"] for one in found.values()} == {
        "full": 3e-3, "lora": 1e-2, "rsvd": 1e-2,
    }  # fmt: skip
    assert all(len(one["trials"]) == 6 for one in found.values())
    cell = next(c for c in plan.cells("train") if c.method == "lora")
    request, says = settled.settle(plan.request("train", cell))
    assert request["method"]["learning_rate"] == says["selected"]["learning_rate"] == 1e-2
    assert {**request["method"], "learning_rate": None} == {**plan.method("train", cell), "learning_rate": None}


def test_a_choice_of_another_plan_is_refused_and_so_is_a_trial(tried) -> None:
    plan, _ = tried(lambda *_: 1.0)
    request = copy.deepcopy(plan.request("train", plan.cells("train")[0]))
    request["inputs"]["search"] = "0" * 16
    with pytest.raises(ValueError, match=r"selected\.json: answers request .*, this job was planned with 0000"):
        settled.settle(request)
    choice = copy.deepcopy(plan.choice(plan.cells("train")[0].curve))
    choice["trials"][0]["digest"] = "0" * 16
    with pytest.raises(ValueError, match=r"trial\.json: answers request"):
        settled.choose(choice)


def test_a_search_that_failed_is_the_status_of_its_runs(tried) -> None:
    from rankwise import training

    plan, _ = tried(lambda method, rate, seed: 1.0 if method != "lora" else "out_of_memory" if rate == 1e-2 else "diverged")
    for cell in plan.cells("train"):
        if cell.method == "lora":
            found = training.train(plan.request("train", cell))
            assert found["status"] == "diverged"
            assert found["reason"].startswith(
                "no trial of the search ended well: 4 diverged, 2 out of memory; the first: because of"
            )


def test_the_table_has_a_row_a_trial_and_seed_and_marks_what_was_chosen(tried) -> None:
    from rankwise.report import collect

    plan, found = tried(lambda method, rate, seed: "diverged" if rate == 1e-2 else rate * seed)
    frame = collect.trials((Path(plan.path("trial", c)), plan.request("trial", c)) for c in plan.cells("trial"))
    assert len(frame) == len(plan.cells("trial")) == 30
    assert {"split", "selection_loss_nats", "learning_rate", "updates", "reason"} <= set(frame)
    assert "eval_loss_nats" not in frame
    chosen = frame[frame["selected"]].groupby(["method", "rank"])["trial"].agg(set).map(sorted).to_dict()
    assert chosen == {
        (one["request"]["cell"]["method"], one["request"]["cell"]["rank"]): [one["selected"]["trial"]] for one in found.values()
    }
    assert set(frame.loc[frame["learning_rate"] == 1e-2, "status"]) == {"diverged"}


def test_options_tried_are_columns(tmp_path: Path) -> None:
    from rankwise.report import collect

    plan = planned({"learning_rates": [1.0e-3], "options": {"alpha": ["rank", 16]}}, methods=["lora"])
    requests = {tmp_path / plan.path("trial", cell): plan.request("trial", cell) for cell in plan.cells("trial")}
    for path, request in requests.items():
        result.write(path, request, {"metrics": {"eval_loss_nats": 1.0}}, {})
    assert list(collect.trials(requests.items())["options_alpha"]) == [2, 16, 4, 16]


# Training -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """Inputs as the workflow lays them, without the reported split; the model is pre-trained for two updates."""
    from accelerate.state import AcceleratorState

    from rankwise import datasets, pretrain

    root, plan = tmp_path_factory.mktemp("inputs"), planned(methods=["full", "lora"], ranks=[2])
    library = copy.deepcopy(plan.library)
    library["datasets"]["generated_text"]["generated"]["rows"]["train"] = 600
    library["datasets"]["generated_reviews"]["generated"]["rows"] = {"train": 600, "validation": 100}
    library["models"]["tiny"]["weights"]["pretrain"]["schedule"] |= {"updates": 2, "evaluate_every_updates": 2}
    plan.library = library
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for kind, name in plan.inputs():
            request, path = plan.input_request(kind, name), root / plan.input_path(kind, name)
            path.parent.mkdir(parents=True)
            AcceleratorState._reset_state(reset_partial_state=True)
            make = datasets.prepare_dataset if kind == "dataset" else pretrain.pretrain
            result.write(path, request, make(request, path.parent), {})
    (root / "results/inputs/datasets/generated_reviews/validation.jsonl").rename(root / "validation.jsonl")
    return root, plan


@pytest.fixture
def run(prepared: tuple[Path, Plan], monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict], dict]:
    """Train with a request, where the inputs lie."""
    from accelerate.state import AcceleratorState

    from rankwise import training

    monkeypatch.chdir(prepared[0])

    def train(kind: str, request: dict) -> dict:
        AcceleratorState._reset_state(reset_partial_state=True)
        return getattr(training, kind)(request)

    return train


def test_a_trial_needs_no_reported_split(prepared: tuple[Path, Plan], run) -> None:
    """It lies elsewhere. A trial's metrics are those of the selection slice at its best state; no example is scored."""
    plan = prepared[1]
    found = run("trial", plan.request("trial", plan.cells("trial")[0]))
    assert found["split"] == "selection"
    assert found["metrics"]["updates"] == 3
    assert found["metrics"]["eval_loss_nats"] == min(row["selection_loss_nats"] for row in found["history"])
    assert "examples" not in found
    with pytest.raises(FileNotFoundError, match=r"validation\.jsonl"):
        run("train", {**(request := copy.deepcopy(plan.request("trial", plan.cells("trial")[0]))),
                      "dataset": {**request["dataset"], "report_split": "validation"}})  # fmt: skip


def test_a_run_after_a_search_is_the_run_with_those_settings(prepared: tuple[Path, Plan], run) -> None:
    """To the bit; the result and its row in the table say which they were."""
    from rankwise.report import collect

    root, plan = prepared
    home = root / "results/inputs/datasets/generated_reviews/validation.jsonl"
    cell = next(c for c in plan.cells("train") if c.method == "lora")
    choice, losses = plan.choice(cell.curve), {}
    for tried in (c for c in plan.cells("trial") if c.curve == cell.curve):
        request = plan.request("trial", tried)
        found = run("trial", request)
        result.write(root / plan.path("trial", tried), request, found, {})
        losses.setdefault(request["trial"]["learning_rate"], []).append(found["metrics"]["eval_loss_nats"])
    result.write(root / f"results/search/{cell.curve.folder}/selected.json", choice, settled.choose(choice), {})
    (root / "validation.jsonl").rename(home)
    try:
        found = run("train", plan.request("train", cell))
        plain = {name: value for name, value in GRID.items() if name != "search"}
        rate = {"lora": {"learning_rate": found["selected"]["learning_rate"]}}
        alone = Plan({**STUDY, "train": [{**plain, "override": rate}]}, ROOT)
        alone.library = plan.library
        same = run("train", alone.request("train", cell))
    finally:
        home.rename(root / "validation.jsonl")
    assert json.dumps([found["metrics"], found["history"]]) == json.dumps([same["metrics"], same["history"]])
    assert found["split"] == "validation"
    assert found["selected"]["learning_rate"] == min(losses, key=lambda rate: sum(losses[rate]))
    path = root / plan.path("train", cell)
    result.write(path, plan.request("train", cell), found, {})
    row = collect.collect([(path, plan.request("train", cell))]).iloc[0]
    assert row["learning_rate"] == found["selected"]["learning_rate"]


# The figure -----------------------------------------------------------------------------------------------------------

LABELS = {"full": "Full AdamW", "lora": "LoRA"}


def search_table(**losses: dict[float, float | None]) -> pd.DataFrame:
    """Rows of the table, by `method_rank`; no loss is a trial that diverged."""
    rows = []
    for name, curve in losses.items():
        method, rank = name.split("_")
        best = min((loss, rate) for rate, loss in curve.items() if loss is not None)[1] if any(curve.values()) else None
        rows += [
            {"model": "tiny", "dataset": "reviews", "method": method, "rank": int(rank), "seed": 0, "trial": f"lr{rate}",
             "learning_rate": rate, "status": "diverged" if loss is None else "ok", "selected": rate == best,
             "selection_loss_nats": math.nan if loss is None else loss} for rate, loss in curve.items()
        ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_figure_rings_what_was_chosen_and_shows_what_failed() -> None:
    from rankwise.report import sensitivity

    table = search_table(full_0={1e-3: 0.5, 1e-2: 0.2, 1e-1: None}, lora_8={1e-3: 0.7, 1e-2: 0.6, 1e-1: 0.4})
    (axes,) = sensitivity.draw({"search": table}, LABELS).axes
    rings = [line.get_xydata().tolist() for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert rings == [[[1e-2, 0.2]], [[1e-1, 0.4]]]
    (cross,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert cross.get_xdata()[0] == 1e-1
    assert axes.get_xscale() == "log"
    assert "failed: Full AdamW" in axes.get_xlabel()
    assert "chosen at the end of the rates tried: LoRA r=8" in axes.get_xlabel()


def test_the_figure_says_when_there_is_nothing_or_everything_failed() -> None:
    from rankwise.report import sensitivity

    with pytest.raises(ValueError, match="no trials"):
        sensitivity.draw({"search": search_table(full_0={1e-3: 0.5}).iloc[:0]}, LABELS)
    (axes,) = sensitivity.draw({"search": search_table(full_0={1e-3: None, 1e-2: None})}, LABELS).axes
    assert [line.get_marker() for line in axes.lines] == ["x", "x"]


def test_many_curves_have_a_panel_a_method() -> None:
    from rankwise.report import sensitivity

    curves = {f"lora_{rank}": {1e-3: 0.5, 1e-2: 0.4} for rank in (1, 2, 4, 8, 16, 32, 64, 128)}
    figure = sensitivity.draw({"search": search_table(full_0={1e-3: 0.5, 1e-2: 0.1}, **curves)}, LABELS)
    assert [axes.get_title(loc="left").rpartition(" / ")[2] for axes in figure.axes] == ["without a rank", "LoRA"]
    assert len({axes.get_ylim() for axes in figure.axes}) == 1


# The workflow ---------------------------------------------------------------------------------------------------------

YAML = """\
name: searched
question: Which edit reruns which trial?
device: cpu
schedule: {updates: 2, batch_size: 8, eval_batch_size: 64}
train:
  - models: [tiny]
    datasets: [generated_reviews]
    methods: [full, lora]
    ranks: [2]
    seeds: [0]
    search: {learning_rates: [1.0e-3, 1.0e-2], schedule: {updates: 1}}
  - {models: [tiny], datasets: [generated_reviews], methods: [head_only], seeds: [0]}
"""
FILE, TARGETS = "config/searched.yaml", ("results/figures/sensitivity.png", "results/tables/runs.csv")
TABLES = {"table search", "table runs", "figure sensitivity"}
TRIALS = {name: {f"trial {name} lr0.001", f"trial {name} lr0.01"} for name in ("full", "lora")}
AFTER = {name: {f"selected {name}", f"train {name}"} for name in ("full", "lora")}
PROMISES = {
    "one method": ("src/rankwise/methods/lora.py", "lora_alpha=self.alpha", "lora_alpha=1 * self.alpha", TRIALS["lora"] | AFTER["lora"] | TABLES),
    "a value added before the others": (FILE, "[1.0e-3, 1.0e-2]", "[3.0e-4, 1.0e-3, 1.0e-2]", {"trial full lr0.0003", "trial lora lr0.0003", *AFTER["full"], *AFTER["lora"], *TABLES}),
    "the order of the values": (FILE, "[1.0e-3, 1.0e-2]", "[1.0e-2, 1.0e-3]", {"table search", "table runs", "figure sensitivity"}),
    "a method's own rate, which no trial uses": ("config/methods.yaml", "dropout: 0.1}\n  learning_rate: 2.0e-4", "dropout: 0.1}\n  learning_rate: 3.0e-4", set()),
    "the schedule of the trials": (FILE, "{updates: 1}", "{updates: 2}", {*TRIALS["full"], *TRIALS["lora"], *AFTER["full"], *AFTER["lora"], *TABLES}),
    "a new seed of the runs": (FILE, "ranks: [2]\n    seeds: [0]", "ranks: [2]\n    seeds: [0, 1]", {"train full seed1", "train lora seed1", "table search", "table runs", "figure sensitivity"}),
    "the choice": ("src/rankwise/settled.py", "return min(sound)[2]", "return sorted(sound)[0][2]", {*AFTER["full"], *AFTER["lora"], *TABLES}),
    "the lock of the report": ("envs/report.lock", "matplotlib==", "matplotlib==0", TABLES),
    "a comment": ("src/rankwise/settled.py", "import math", "# chosen here\nimport math", set()),
}  # fmt: skip


def name_of(path: str) -> str | None:
    """`results/search/tiny/generated_reviews/lora/r2/lr0.01/seed0/trial.json` -> `trial lora lr0.01`."""
    parts = Path(path).parts
    if parts[1] in ("runs", "search"):
        return " ".join([Path(path).stem, parts[4], *(part for part in parts[6:-1] if part != "seed0")])
    kinds = {"tables": "table", "figures": "figure"}
    if parts[1] in kinds:
        return f"{kinds[parts[1]]} {Path(path).stem}" if path.endswith((".csv", ".png")) else None
    return " ".join(parts[2:])


def pending(root: Path) -> set[str]:
    done = run_snakemake(root, *TARGETS, "--configfile", FILE, "--summary")
    assert done.returncode == 0, done.stderr
    head, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    plan = head.index("plan")
    return {name for row in rows if row[plan] != "no update" and (name := name_of(row[0]))}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which a study with a search has been run; the tiny model is pre-trained for two updates."""
    root = copy_repository(tmp_path_factory.mktemp("searched") / "clone")
    (root / FILE).write_text(YAML)
    edit(root / "config/models.yaml", "schedule: {updates: 900", "schedule: {updates: 2")
    edit(root / "config/datasets.yaml", "rows: {train: 12000", "rows: {train: 1200")
    done = run_snakemake(root, *TARGETS, "--configfile", FILE, "--cores", "2")
    assert done.returncode == 0, done.stderr[-5000:]
    assert pending(root) == set()
    return root


@pytest.mark.slow
def test_a_search_runs_and_its_runs_follow_it(finished: Path) -> None:
    search = pd.read_csv(finished / "results/tables/search.csv")
    runs = pd.read_csv(finished / "results/tables/runs.csv").set_index("method")
    assert len(search) == 4
    assert set(search["split"]) == {"selection"}
    for method, tried in search.groupby("method"):
        best = tried.loc[tried["selection_loss_nats"].idxmin()]
        assert best["selected"] and tried["selected"].sum() == 1
        assert runs.loc[method, "learning_rate"] == best["learning_rate"]
    assert runs.loc["head_only", "learning_rate"] == 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("promise", PROMISES)
def test_an_edit_reruns_exactly(promise: str, finished: Path) -> None:
    file, old, new, expected = PROMISES[promise]
    path = finished / file
    content, stat = path.read_bytes(), path.stat()
    try:
        edit(path, old, new)
        assert pending(finished) == expected
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "trial"])
def test_a_result_is_rebuilt_alone_to_the_byte(kind: str, finished: Path, tmp_path: Path) -> None:
    stored = next(path for path in finished.glob(f"results/*/**/lora/**/{kind}.json"))
    again = tmp_path / "again.json"
    command = [sys.executable, f"workflow_scripts/{kind}.py", "--request", f"@{stored}", "--output", str(again)]
    environment = {**os.environ, "PYTHONPATH": str(finished / "src")}
    done = subprocess.run(command, cwd=finished, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    old, new = (json.loads(path.read_text()) for path in (stored, again))
    for name in ("metrics", "history", "request", "selected", "examples"):
        assert old.get(name) == new.get(name)
    assert ("selected" in new) == (kind == "train")


@pytest.mark.slow
def test_what_would_run_is_shown(finished: Path) -> None:
    done = run_snakemake(
        finished, "results/search/tiny/generated_reviews/lora/r2/selected.json", "--configfile", FILE, "-n", "--forceall"
    )
    assert done.returncode == 0, done.stderr
    assert "rule choose:" in done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("rule trial:") == 2
    wrong = run_snakemake(
        finished, "results/search/tiny/generated_reviews/lora/r2/lr0.1/seed0/trial.json", "--configfile", FILE, "-n"
    )
    assert "nearest: results/search/tiny/generated_reviews/lora/r2/lr0.01/seed0/trial.json" in wrong.stderr
