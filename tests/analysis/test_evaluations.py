"""Tables of evaluations: one row a run and metric, intervals over seeds and examples, and means."""

import math

import pytest

from helpers.planted import MARGINS, request, write
from rankwise.analysis import statistics, tables
from rankwise.analysis.claim_verdicts import judge
from rankwise.analysis.evaluations import collect, evidence, groups
from rankwise.study.claims import expand

ACCURACY = "accuracy_fraction"
METRICS = {"a": ACCURACY, "b": ACCURACY, "both": ACCURACY}
MEANS = {"both": ["a", "b"]}
EQUIVALENCE = {**MARGINS, "exact_match_fraction": 0.01}
LORA = {"a": [[1, 0], [1, 1]], "b": [[1, 1, 1, 0], [0, 1, 1, 0]]}
FULL = {"a": [[0, 0], [0, 1]], "b": [[1, 0, 1, 0], [0, 1, 1, 0]]}


def asked(method, seed, name, device="cpu"):
    plain = request(method, 0, seed)
    entry = {"kind": "harness", "few_shot": 5, "metric": ACCURACY}
    return {
        "measurement": "evaluate",
        "cell": {**plain["cell"], "evaluation": name},
        "evaluation": entry,
        "device": device,
    }


def written(folder, method, seed, name, scores, documents=None, device="cpu"):
    """The result of one evaluation, or one that failed where the scores are a status."""
    place = folder / f"{method}-{seed}-{name}"
    answered = asked(method, seed, name, device)
    if isinstance(scores, str):
        return write(place, answered, status=scores, reason="as planted")
    row = {
        "evaluation": name,
        "metric": ACCURACY,
        "score_fraction": sum(scores) / len(scores),
        "samples": len(scores),
    }
    examples = {"document": documents or [f"{name}{i}" for i in range(len(scores))]}
    examples[ACCURACY] = [float(score) for score in scores]
    return write(place, answered, rows=[row], examples=examples, metrics={"truncated_rows": 0})


def study(folder, **methods):
    return [
        written(folder, method, seed, name, scores)
        for method, by_name in methods.items()
        for name, by_seed in by_name.items()
        for seed, scores in enumerate(by_seed)
    ]


def test_a_row_for_each_run_and_metric_and_for_each_mean(tmp_path):
    """The mean of two evaluations counts each of them alike: 2 and 4 examples."""
    frame = collect(study(tmp_path, lora=LORA), METRICS, MEANS)
    rows = [
        (row.evaluation, row.seed, row.score_fraction, row.samples) for row in frame.itertuples()
    ]
    assert rows == [
        ("a", 0, 0.5, 2), ("a", 1, 1.0, 2), ("b", 0, 0.75, 4), ("b", 1, 0.5, 4),
        ("both", 0, (0.5 + 0.75) / 2, 6), ("both", 1, (1.0 + 0.5) / 2, 6),
    ]  # fmt: skip
    assert list(frame["few_shot"][:4]) == [5] * 4
    assert frame["limit"].isna().all()


def test_a_failed_run_has_its_reason_and_no_mean(tmp_path):
    planned = study(tmp_path, lora={"a": [[1, 0]], "b": ["diverged"]})
    frame = collect(planned, METRICS, MEANS)
    assert list(frame["evaluation"]) == ["a", "b"]
    assert list(frame["status"]) == ["ok", "diverged"]
    assert frame["reason"][1] == "as planted"


def summarised(folder, planned, means=MEANS):
    given = {
        "reads": [str(one.path) for one in planned],
        "variants": {},
        "metrics": METRICS,
        "means": means,
        "equivalence": EQUIVALENCE,
    }
    evidence(given, folder / "evaluations_summary.csv")
    names = ("evaluations_summary", "evaluations_comparisons")
    return [tables.read(folder / f"{name}.csv") for name in names]


def test_the_summary_has_the_interval_of_seeds_and_examples(tmp_path):
    summary, _ = summarised(tmp_path, study(tmp_path, lora=LORA, full=FULL))
    assert list(summary["evaluation"]) == ["a", "a", "b", "b", "both", "both"]
    row = summary[(summary["evaluation"] == "b") & (summary["method"] == "lora")].iloc[0]
    expected = statistics.mean(LORA["b"])
    assert row["estimate"] == pytest.approx(5 / 8)
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
    assert (row["seeds"], row["examples"], row["metric"]) == (2, 4, ACCURACY)
    both = summary[(summary["evaluation"] == "both") & (summary["method"] == "lora")].iloc[0]
    assert both["estimate"] == pytest.approx((0.625 + 0.75) / 2)
    assert both["examples"] == 6


def test_curves_are_compared_example_by_example(tmp_path):
    _, compared = summarised(tmp_path, study(tmp_path, lora=LORA, full=FULL))
    row = compared[compared["evaluation"] == "b"].iloc[0]
    assert (row["method_a"], row["method_b"]) == ("lora", "full")
    assert row["difference"] == pytest.approx(1 / 8)  # one of eight pairs differs
    expected = statistics.difference(LORA["b"], FULL["b"])
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
    both = compared[compared["evaluation"] == "both"].iloc[0]
    assert both["difference"] == pytest.approx(((3 / 4 - 1 / 4) + (5 / 8 - 4 / 8)) / 2)


def test_what_differs_between_evaluations_is_no_error_of_their_mean(tmp_path):
    """All right on one and all wrong on the other: nothing varies within them."""
    sure = {"a": [[1, 1]] * 2, "b": [[0, 0, 0, 0]] * 2}
    groups_by_name = {
        name: group for name, _, group in groups(study(tmp_path, lora=sure), METRICS, MEANS)
    }
    (curve,) = groups_by_name["both"].curves
    assert curve.scores.tolist() == [[0.5] * 6] * 2
    estimate = statistics.mean(curve.scores)
    assert (estimate.low, estimate.high) == (0.5, 0.5)


def test_the_spread_of_a_mean_is_that_of_a_stratified_sample(tmp_path):
    """Var = sum over the evaluations of s^2 / (4 n), of the deviations from their own means."""
    many = {"a": [[1, 0, 1, 1]] * 2, "b": [[0, 1] * 4] * 2}
    found = {name: group for name, _, group in groups(study(tmp_path, lora=many), METRICS, MEANS)}
    scores = found["both"].curves[0].scores[0]
    deviations_a, deviations_b = 4 * (0.25 * 0.75), 8 * 0.25  # sums of squares
    expected = deviations_a / (4 * 4**2) + deviations_b / (4 * 8**2)
    assert ((scores - scores.mean()) ** 2).sum() / 12**2 == pytest.approx(expected)


def test_one_seed_has_no_interval(tmp_path):
    summary, _ = summarised(tmp_path, study(tmp_path, lora={"a": [[1, 0]]}), means={})
    assert math.isnan(summary["low"][0])
    assert summary["note"][0] == "one seed: no interval"


def test_other_examples_are_refused(tmp_path):
    planned = [
        written(tmp_path, "lora", 0, "a", [1, 0]),
        written(tmp_path, "full", 0, "a", [1, 0], documents=["a0", "other"]),
    ]
    with pytest.raises(
        ValueError, match="lora seed 0 and full seed 0 were scored on other examples"
    ):
        groups(planned, METRICS, {})


def test_two_kinds_of_device_are_refused(tmp_path):
    planned = [
        written(tmp_path, "lora", 0, "a", [1, 0]),
        written(tmp_path, "lora", 1, "a", [1, 0], device="cuda"),
    ]
    with pytest.raises(ValueError, match="device of m/d is cpu and cuda"):
        groups(planned, METRICS, {})


def test_a_claim_is_decided_by_its_evaluation_and_metric(tmp_path):
    planned = study(tmp_path, lora=LORA)
    summary, _ = summarised(tmp_path, planned)
    frames = {"evaluations": collect(planned, METRICS, MEANS), "evaluations_summary": summary}
    family = {
        "system": "D", "title": "t", "definition": "d", "unit": "fraction", "source": "s",
        "needs": {}, "study": "config/shapes.yaml", "per": 1,
        "published": 0.6, "table": "evaluations", "column": "score_fraction",
        "cell": {"model": "m", "dataset": "d", "method": "lora"},
        "settings": {"evaluation": "both", "metric": ACCURACY},
    }  # fmt: skip
    judged = judge(expand({"claim": family}), frames).iloc[0]
    assert judged["ours"] == pytest.approx(0.6875)
    both = summary[summary["evaluation"] == "both"].iloc[0]
    assert (judged["low"], judged["high"]) == (both["low"], both["high"])
