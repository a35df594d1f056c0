"""Estimates and comparisons: what is planted is found, what is not there is not, and what cannot be compared is refused."""

import gc
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats as known

from analysis.test_gather import request, write
from helpers.repository import ROOT, run_snakemake
from rankwise.analysis import statistics, tables, tidy
from rankwise.analysis.evidence import comparisons, estimates
from rankwise.analysis.scores import METRICS, Curve, Group, groups, mixed
from rankwise.core import result
from rankwise.study.plan import Plan

MARGINS = {"accuracy_fraction": 0.01, "perplexity_ratio": 1.02}
ACCURACY, PERPLEXITY = METRICS
BETTER = {"a better", "b better"}
Scores = dict[
    tuple[str, int], list | str
]  # a curve's scores by seed, or the status of all its runs


def study(
    folder: Path,
    curves: Scores,
    dataset: str = "d",
    weights: list | None = None,
    device: str = "cpu",
) -> list[tuple[Path, dict]]:
    """Results of runs: 0/1 scores as accuracies, others as losses; a seed may have a status in place of scores."""
    found = []
    for (method, rank), tried in curves.items():
        for seed, scores in enumerate([tried] * 2 if isinstance(tried, str) else tried):
            asked = request(method, rank, seed)
            asked["cell"]["dataset"], asked["device"] = dataset, device
            path = folder / f"{dataset}-{method}-{rank}-{seed}.json"
            if isinstance(scores, str):
                found.append(write(path, asked, status=scores, reason="as planted"))
                continue
            values, share = (
                np.asarray(scores, float),
                np.asarray(weights[seed] if weights else np.ones(len(scores)), float),
            )
            mean = float((values * share).sum() / share.sum())
            right = set(np.unique(values)) <= {0.0, 1.0}
            lists = (
                {"correct_fraction": values.tolist()}
                if right or weights
                else {"loss_nats": values.tolist()}
            )
            own = (
                {"accuracy_fraction": mean}
                if "correct_fraction" in lists
                else {"perplexity": math.exp(mean)}
            )
            own |= {
                "updates": 10,
                "samples": 80,
                "tokens": 800 + seed,
                "trainable_parameters": 100 + rank,
            }
            lists["predictions"] = share.tolist()
            found.append(
                write(path, asked, metrics=own, examples=lists, cost={"step_time_s": 0.1 + rank})
            )
    return found


def gathered(pairs: list[tuple[Path, dict]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    return tidy.collect(pairs), tidy.examples(pairs)


def drawn(chance: np.random.Generator, accuracies: list[float], seeds: int, examples: int) -> Group:
    """Curves whose true accuracies are given; examples are hard or easy for all, and seeds are better or worse."""
    hard = chance.normal(0, 0.8, examples)
    curves = []
    for number, accuracy in enumerate(accuracies):
        level = known.norm.ppf(accuracy) * math.sqrt(1 + 0.8**2 + 0.05**2)
        luck = chance.normal(0, 0.05, (seeds, 1)) + chance.normal(0, 1, (seeds, examples))
        curves.append(
            Curve(f"m{number}", 0, tuple(range(seeds)), (level + hard + luck > 0).astype(float), "")
        )
    return Group("m", "d", ACCURACY, examples, curves)


@pytest.fixture
def few_collections() -> Iterator[None]:
    """Statsmodels collects garbage at every call, which takes long in a large process: leave what is there out of it."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_an_estimate_is_the_mean_of_the_runs_own_metric_with_the_interval_of_stats(
    tmp_path: Path,
) -> None:
    chance = np.random.default_rng(0)
    right, losses = chance.random((3, 40)) < 0.7, chance.gamma(2, 1, (3, 40))
    runs, examples = gathered(
        study(tmp_path, {("full", 0): right}) + study(tmp_path, {("full", 0): losses}, "text")
    )
    found = estimates(groups(runs, examples)).set_index("metric")
    accuracy, perplexity = found.loc["accuracy_fraction"], found.loc["perplexity"]
    assert accuracy["estimate"] == pytest.approx(runs["accuracy_fraction"].mean())
    assert perplexity["estimate"] == pytest.approx(
        math.exp(np.log(runs["perplexity"].dropna()).mean())
    )
    assert tuple(accuracy[["low", "high"]]) == statistics.mean(right)[1:3]
    assert tuple(perplexity[["low", "high"]]) == pytest.approx(np.exp(statistics.mean(losses)[1:3]))
    assert list(found["seeds"]) == [3, 3]
    assert list(found["examples"]) == [40, 40]


def test_examples_weigh_as_much_as_they_predict_even_where_that_differs_by_seed(
    tmp_path: Path,
) -> None:
    chance = np.random.default_rng(1)
    weights = [chance.integers(0, 9, 40) for _ in range(3)]
    shares = [chance.random(40) for _ in range(3)]
    runs, examples = gathered(study(tmp_path, {("full", 0): shares}, weights=weights))
    assert estimates(groups(runs, examples))["estimate"][0] == pytest.approx(
        runs["accuracy_fraction"].mean()
    )


def test_equal_methods_are_called_better_in_one_study_of_twenty_at_most(few_collections) -> None:
    chance = np.random.default_rng(2)
    wrong = sum(
        bool(BETTER & {*comparisons([drawn(chance, [0.8] * 3, 3, 200)], MARGINS)["verdict"]})
        for _ in range(120)
    )
    assert wrong <= known.binom.ppf(0.999, 120, 0.05)


def test_methods_a_margin_apart_are_called_tied_in_one_study_of_twenty_at_most(
    few_collections,
) -> None:
    chance, margins = np.random.default_rng(3), {**MARGINS, "accuracy_fraction": 0.05}
    pairs = [
        comparisons([drawn(chance, [0.80, 0.75], 3, 1000)], margins)["verdict"][0]
        for _ in range(120)
    ]
    assert pairs.count("tied") <= known.binom.ppf(0.999, 120, 0.05)


def test_a_better_method_is_better_and_equal_ones_are_tied_with_enough_data() -> None:
    found = comparisons(
        [drawn(np.random.default_rng(4), [0.8, 0.8, 0.9], 8, 20000)],
        {**MARGINS, "accuracy_fraction": 0.02},
    )
    assert list(found["verdict"]) == ["tied", "b better", "b better"]
    assert (found["difference"] < 0)[1:].all()
    assert (found["low"] < found["difference"]).all()
    assert (found["difference"] < found["high"]).all()


def test_a_lower_perplexity_is_better_and_its_margin_is_a_ratio(tmp_path: Path) -> None:
    chance = np.random.default_rng(5)
    losses = chance.gamma(4, 0.5, 400) + chance.normal(0, 0.01, (3, 400))
    curves = {("full", 0): losses, ("lora", 4): losses + 0.3, ("rsvd", 4): losses + 0.001}
    found = comparisons(groups(*gathered(study(tmp_path, curves))), MARGINS)
    assert list(found["verdict"]) == ["a better", "tied", "b better"]
    assert found["difference"][0] == pytest.approx(0.3)
    assert found["margin"][0] == math.log(1.02)
    assert list(found["p_equivalence_holm"]) == list(statistics.holm(found["p_equivalence"]))


def test_a_real_difference_inside_the_margin_is_a_tie(tmp_path: Path) -> None:
    losses = np.random.default_rng(6).gamma(4, 0.5, 400) + np.array([[0], [0.001], [0.002]])
    shift = np.array([[0.004], [0.005], [0.006]])
    [row] = comparisons(
        groups(*gathered(study(tmp_path, {("full", 0): losses, ("lora", 4): losses + shift}))),
        MARGINS,
    ).itertuples()
    assert row.low > 0
    assert row.p_holm < 0.05
    assert row.verdict == "tied"


def test_holm_adjusts_inside_a_model_and_dataset() -> None:
    chance = np.random.default_rng(7)
    one, other = (
        drawn(chance, [0.8, 0.82, 0.85], 3, 300)._replace(dataset=name) for name in ("d", "e")
    )
    both = comparisons([one, other], MARGINS)
    for dataset, rows in both.groupby("dataset"):
        assert len(rows) == 3, dataset
        assert list(rows["p_holm"]) == list(statistics.holm(rows["p_value"]))
        assert (rows["p_holm"] >= rows["p_value"]).all()


def test_more_seeds_are_asked_for_until_the_examples_are_too_few() -> None:
    found = comparisons(
        [drawn(np.random.default_rng(8), [0.8, 0.8], 3, 400)], {**MARGINS, "accuracy_fraction": 0.2}
    )
    assert 2 <= found["seeds_needed"][0] <= 3
    found = comparisons(
        [drawn(np.random.default_rng(8), [0.8, 0.8], 3, 400)],
        {**MARGINS, "accuracy_fraction": 1e-4},
    )
    assert pd.isna(found["seeds_needed"][0])
    assert "examples too few" in found["note"][0]


def test_trained_models_are_compared_apart_from_methods(tmp_path: Path) -> None:
    """By McNemar's exact test with one seed, else by exchanges within examples: where seeds differ, models may and methods not."""
    one, other = np.array([[1, 1, 1, 0] * 50]), np.array([[0, 0, 1, 0] * 50])
    [row] = comparisons(
        groups(*gathered(study(tmp_path / "one", {("full", 0): one, ("lora", 4): other}))), MARGINS
    ).itertuples()
    assert (row.p_models, row.test_models) == (
        statistics.mcnemar(one[0], other[0]),
        "McNemar, exact",
    )
    assert row.verdict == "undecided"
    apart = np.array([[1.0], [-0.2], [-0.2]]) + np.zeros((3, 200)) + np.linspace(0, 1, 200)
    level = np.linspace(0, 1, 200) + np.zeros((3, 200))
    found = groups(*gathered(study(tmp_path / "more", {("full", 0): apart, ("lora", 4): level})))
    [row] = comparisons(found, MARGINS).itertuples()
    assert row.p_value > 0.05
    assert (
        row.p_models
        == statistics.permutation(
            -found[0].curves[0].scores, -found[0].curves[1].scores, 1999, seed=0
        )
        < 0.01
    )
    assert row.test_models == "permutation, within examples"


def test_one_seed_has_no_interval_and_decides_nothing(tmp_path: Path) -> None:
    found = groups(
        *gathered(
            study(tmp_path, {("full", 0): [[1, 1, 1, 0] * 50], ("lora", 4): [[0, 0, 1, 0] * 50]})
        )
    )
    estimated, compared = estimates(found), comparisons(found, MARGINS)
    assert list(estimated["estimate"]) == [0.75, 0.25]
    assert set(estimated["note"]) == {"one seed: no interval"}
    assert estimated[["low", "high"]].isna().all(axis=None)
    assert compared[["low", "high", "p_value", "p_holm", "seeds_needed"]].isna().all(axis=None)
    assert tuple(compared.loc[0, ["difference", "verdict", "test", "note"]]) == (
        0.5,
        "undecided",
        "one seed",
        "one seed: no interval",
    )


def test_runs_that_failed_are_named_and_pairs_share_what_both_have(tmp_path: Path) -> None:
    chance = np.random.default_rng(9)
    right = (chance.random((3, 60)) < 0.7).astype(float).tolist()
    curves = {
        ("full", 0): right,
        ("lora", 4): [right[0], "diverged", right[2]],
        ("rsvd", 4): "out_of_memory",
    }
    found = groups(*gathered(study(tmp_path, curves)))
    estimated, compared = estimates(found), comparisons(found, MARGINS)
    assert list(estimated["seeds"]) == [3, 2, 0]
    assert list(estimated["note"].fillna("")) == ["", "seed 1 diverged", "seed 0, 1 out of memory"]
    assert list(compared["seeds"]) == [2, 0, 0]
    assert compared["note"][0].startswith("lora r4: seed 1 diverged")
    assert set(compared["verdict"][1:]) == {"undecided"}
    assert compared["difference"][0] == 0  # seed 0 against seed 0, 2 against 2


def test_scores_of_other_numbers_of_examples_are_refused_by_name(tmp_path: Path) -> None:
    pairs = study(tmp_path, {("full", 0): [[1, 0, 1]] * 2, ("lora", 4): [[1, 0, 1], [1, 0]]})
    with pytest.raises(
        ValueError, match=r"examples\.parquet: numbers of examples are .*2 for m/d/lora/r4/seed1"
    ):
        groups(*gathered(pairs))


def test_runs_without_scores_are_named(tmp_path: Path) -> None:
    runs, examples = gathered(
        study(tmp_path, {("full", 0): [[1, 0]] * 2, ("lora", 4): [[1, 0]] * 2})
    )
    with pytest.raises(ValueError, match="no scores for m/d/lora/r4/seed0, m/d/lora/r4/seed1"):
        groups(runs, examples[examples["method"] == "full"])


def test_devices_that_differ_are_refused_by_name(tmp_path: Path) -> None:
    one, other = (tmp_path / name for name in ("one", "other"))
    pairs = study(one, {("full", 0): [[1, 0]] * 2}, device="cpu") + study(
        other, {("lora", 4): [[1, 0]] * 2}, device="cuda"
    )
    with pytest.raises(
        ValueError, match="device of m/d is cpu and cuda; allowed: one a model and dataset"
    ):
        groups(*gathered(pairs))
    assert "device: cpu, but cuda for lora r4" in mixed(tidy.collect(pairs))["m", "d"]


def test_a_study_of_failures_has_empty_tables_with_their_columns(tmp_path: Path) -> None:
    found = groups(*gathered(study(tmp_path, {("full", 0): "diverged"})))
    assert list(estimates(found).columns)[:5] == ["model", "dataset", "metric", "method", "rank"]
    assert len(comparisons(found, MARGINS)) == 0
    tables.write(comparisons(found, MARGINS), tmp_path / "comparisons")
    assert tables.read(tmp_path / "comparisons.csv").empty


MINI = {
    "name": "mini", "question": "Which?", "device": "cpu", "equivalence": {"accuracy_fraction": 0.2},
    "train": [{"models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["full", "lora", "rsvd"], "ranks": [2], "seeds": [0, 1, 2, 3]}],
    "profile": [{"models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["full", "lora"], "ranks": [2], "measurements": ["memory"]}],
}  # fmt: skip


def planted(root: Path, plan: Plan) -> None:
    """Results that answer the plan's requests, and inputs older than they: full and lora equal, rsvd worse."""
    chance = np.random.default_rng(10)
    hard = chance.random(2000)
    for kind, name in plan.inputs():
        result.write_json(
            root / plan.input_path(kind, name), {"request": plan.input_request(kind, name)}
        )
    for cell in plan.cells("train"):
        right = (hard < (0.5 if cell.method == "rsvd" else 0.9)) ^ (chance.random(2000) < 0.01)
        lists = {
            "correct_fraction": right.astype(float).tolist(),
            "loss_nats": [1.0] * 2000,
            "predictions": [1] * 2000,
        }
        metrics = {
            "accuracy_fraction": float(right.mean()),
            "updates": 8,
            "trainable_parameters": 10,
        }
        found = {"metrics": metrics, "examples": lists, "split": "validation"}
        result.write(root / plan.path("train", cell), plan.request("train", cell), found, {})
    for cell in plan.cells("memory"):
        sizes = dict.fromkeys(
            ("weights_bytes", "gradients_bytes", "optimizer_state_bytes"), 100 + cell.rank
        )
        result.write(
            root / plan.path("memory", cell), plan.request("memory", cell), {"metrics": sizes}, {}
        )


@pytest.mark.slow
def test_the_rules_write_every_table_and_have_nothing_to_do_twice(clone: Path) -> None:
    (clone / "config/mini.yaml").write_text(yaml.safe_dump(MINI))
    planted(clone, Plan(MINI, clone, "config/mini.yaml"))
    names = ("estimates", "comparisons", "summary", "fronts", "views")
    files = [
        f"results/tables/{name}.{end}" for name in names for end in ("csv", "md", "tex", "parquet")
    ]
    done = run_snakemake(clone, *files, "--configfile", "config/mini.yaml", "--cores", "2")
    assert done.returncode == 0, done.stderr[-4000:]
    assert all((clone / file).stat().st_size for file in files)
    verdicts = tables.read(clone / "results/tables/comparisons.csv")["verdict"]
    assert list(verdicts) == ["tied", "a better", "a better"]
    again = run_snakemake(clone, *files, "--configfile", "config/mini.yaml", "-n")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_table_of_runs_that_a_study_does_not_have_is_refused(tmp_path: Path) -> None:
    from rankwise.checks import preflight
    from rankwise.core.config import ConfigError

    plan = Plan({**MINI, "train": []}, ROOT, "config/mini.yaml")
    for target in (
        "results/tables/estimates.csv",
        "results/tables/views.md",
        "results/figures/loss.png",
    ):
        with pytest.raises(ConfigError, match="none of train"):
            preflight.check_targets([target], plan)
