"""The page's first sentences say what the tables support, in right words, and no more."""

import math

import pandas as pd
import pytest

from rankwise.report.html import answer, build, claims

LABELS = {"full": "Full AdamW", "lora": "LoRA", "rsvd": "rSVD"}
GROUP = {"model": "m", "dataset": "d"}
Frames = dict[str, pd.DataFrame]


def tables(
    metric: str = "accuracy_fraction",
    values: tuple = (0.9, 0.88, 0.7),
    seeds: int = 3,
    notes: tuple = (None, None, None),
) -> Frames:
    """Full, LoRA r=8 and rSVD r=8. LoRA is tied with full at 98 %, rSVD is not decided."""
    curves = [("full", 0), ("lora", 8), ("rsvd", 8)]
    estimates, runs, memory = [], [], []
    for (method, rank), value, note, state in zip(
        curves, values, notes, (2048, 512, 1024), strict=True
    ):
        curve = {**GROUP, "method": method, "rank": rank}
        ends = (
            {"low": value - 0.02, "high": value + 0.02}
            if seeds > 1
            else {"low": math.nan, "high": math.nan}
        )
        count = 0 if math.isnan(value) else seeds
        estimates.append(
            {**curve, "metric": metric, "seeds": count, "estimate": value, **ends, "note": note}
        )
        runs += [{**curve, "seed": seed, "status": "ok", "device": "cpu"} for seed in range(seeds)]
        memory.append(
            {**curve, "status": "ok", "optimizer_state_bytes": state, "adapter_bytes": 2 * state}
        )
    return {
        "runs": pd.DataFrame(runs),
        "estimates": pd.DataFrame(estimates),
        "comparisons": comparisons(seeds),
        "memory": pd.DataFrame(memory),
    }


def comparisons(seeds: int) -> pd.DataFrame:
    lora = {"ratio": 1 / 0.98, "ratio_low": 1 / 0.991, "ratio_high": 1 / 0.969, "verdict": "tied"}
    rsvd = {"ratio": 1 / 0.8, "ratio_low": 1 / 1.1, "ratio_high": 1 / 0.6, "verdict": "undecided"}
    rows = []
    for method, columns in (("lora", lora), ("rsvd", {**rsvd, "seeds_needed": 7})):
        names = {"method_a": "full", "rank_a": 0, "method_b": method, "rank_b": 8}
        row = {**GROUP, **names, "seeds": seeds, "margin": 0.01, "seeds_needed": None, "note": None}
        rows.append({**row, **columns})
    frame = pd.DataFrame(rows)
    if seeds == 1:
        frame = frame.assign(
            ratio_low=None, ratio_high=None, verdict="undecided", seeds_needed=None
        )
    return frame.astype({"ratio_low": float, "ratio_high": float})


def sentences(frames: Frames, named: dict | None = None) -> list[str]:
    """Those about the first model and dataset."""
    return answer.answer(frames, LABELS, named)[0][1]


# Quality and cost ---------------------------------------------------------------------------------


def test_each_curve_is_told_against_full_fine_tuning_with_its_cost() -> None:
    reference, lora, rsvd, meaning = sentences(tables())
    assert reference == (
        "The reference is Full AdamW, with an accuracy of 90.0 % (its own 95 % interval 88.0 to 92.0, "
        "3 seeds). It takes 4.00 KiB to store."
    )
    assert lora == (
        "LoRA r=8 keeps 98.0 % of Full AdamW's accuracy (95 % interval 96.9 to 99.1), with 25 % of its "
        "optimizer memory and 1.00 KiB to store: tied, the difference is smaller than 1 point."
    )
    assert rsvd == (
        "rSVD r=8 keeps 80.0 % of Full AdamW's accuracy (95 % interval 60.0 to 110.0), with 50 % of "
        "its optimizer memory and 2.00 KiB to store: not decided with 3 seeds, 7 would decide."
    )
    assert "The 95 % intervals against the reference are simultaneous" in meaning
    assert "with a probability of 80 %" in meaning


def test_a_perplexity_is_a_factor_and_the_margin_one_too() -> None:
    frames = tables("perplexity", (10.0, 9.8, 12.5))
    frames["comparisons"]["margin"] = math.log(1.02)
    reference, lora, *_ = sentences(frames)
    assert "with a perplexity of 10 (its own 95 % interval 9.98 to 10.02, 3 seeds)" in reference
    assert lora.startswith(
        "LoRA r=8 has 0.98 times Full AdamW's perplexity (95 % interval 0.969 to 0.991), with 25 %"
    )
    assert lora.endswith(": tied, the difference is smaller than a factor of 1.02.")


def test_one_seed_is_no_evidence() -> None:
    reference, lora, rsvd = sentences(tables(seeds=1))
    assert "(1 seed)" in reference
    assert "interval" not in reference
    for text in (lora, rsvd):
        assert text.endswith(": not decided, one seed gives no interval.")
        assert "95 %" not in text


@pytest.mark.parametrize(("columns", "words"), [
    ({"verdict": "a better"}, "worse"),
    ({"verdict": "b better"}, "better"),
    ({"seeds_needed": None, "note": "more than 50 seeds would be needed"},
     "not decided with 3 seeds, more than 50 would be needed"),
    ({"seeds_needed": None, "note": "examples too few, whatever the seeds"},
     "not decided with 3 seeds, and the examples are too few for more seeds to decide"),
    ({"seeds": 0, "ratio": None, "ratio_low": None, "ratio_high": None, "seeds_needed": None},
     "not compared, the two have no random seed in common"),
])  # fmt: skip
def test_every_verdict_has_its_words(columns: dict, words: str) -> None:
    frames = tables()
    for name, value in columns.items():
        frames["comparisons"].loc[1, name] = value
    text = next(text for text in sentences(frames) if text.startswith("rSVD"))
    assert text.endswith(f": {words}.")


def test_a_rounded_ratio_does_not_hide_its_side_of_100_percent() -> None:
    frames = tables()
    frames["comparisons"].loc[1, ["ratio", "ratio_low", "ratio_high"]] = [
        1 / 1.0006, 1 / 1.0009, 1 / 1.0003,
    ]  # fmt: skip
    frames["comparisons"].loc[1, "verdict"] = "b better"
    text = next(text for text in sentences(frames) if text.startswith("rSVD"))
    assert "reaches 100.1 % of Full AdamW's accuracy (95 % interval 100.03 to 100.1)" in text


def test_much_more_is_a_factor() -> None:
    frames = tables()
    frames["memory"]["optimizer_state_bytes"] = [100.0, 973.0, 100.0]
    assert "with 9.73 times its optimizer memory" in sentences(frames)[1]


# Evaluations --------------------------------------------------------------------------------------


def asked(frames: Frames, *names: str, metric: str = "exact_match_fraction") -> Frames:
    """The tables of a study of which each curve was asked these tasks, as it was scored."""
    estimates, compared = frames["estimates"], frames["comparisons"]
    task = {"metric": metric, "examples": 1200}
    summary = [estimates.assign(evaluation=name, **task) for name in names]
    pairs = [compared.assign(evaluation=name, metric=metric) for name in names]
    return {
        **frames,
        "evaluations_summary": pd.concat(summary),
        "evaluations_comparisons": pd.concat(pairs),
    }


def test_evaluations_come_before_what_training_reports() -> None:
    frames = asked(tables("perplexity", (0.9, 0.88, 0.7)), "arithmetic")
    parts = answer.answer(frames, LABELS)
    titles = [title for title, _ in parts]
    assert titles == ["m on d: arithmetic, 1,200 examples", "m on d, metric of training"]
    reference, lora, rsvd, _ = parts[0][1]
    assert reference.startswith("The reference is Full AdamW, with an exact match of 90.0 %")
    assert lora.startswith("LoRA r=8 keeps 98.0 % of Full AdamW's exact match (95 % interval 96.9")
    assert "with 25 % of its optimizer memory" in lora
    assert rsvd.endswith(": not decided with 3 seeds, 7 would decide.")
    assert "with a perplexity of 0.9" in parts[1][1][0]


def test_a_mean_speaks_for_its_evaluations() -> None:
    frames = asked(tables(), "boolq", "alone", "piqa", "both", metric="accuracy_fraction")
    parts = answer.answer(frames, LABELS, means={"both": ["boolq", "piqa"]})
    assert [title for title, _ in parts] == [
        "m on d: both, 1,200 examples",
        "m on d: alone, 1,200 examples",
        "m on d, metric of training",
    ]
    last = "The mean counts alike: boolq, piqa. Each is in the table Evaluations."
    assert parts[0][1][-1] == last
    assert last not in parts[1][1]


# References, failures, flags ----------------------------------------------------------------------


def test_a_named_reference_without_a_result_is_said() -> None:
    frames = tables(values=(0.9, math.nan, 0.7), notes=(None, "seed 0, 1 diverged", None))
    reference, *others = sentences(frames, {"method": "lora", "rank": 8})
    assert reference.startswith("The reference is Full AdamW")
    assert "LoRA r=8, the study's reference, has no result here." in reference
    assert others[-2] == "LoRA r=8: no run ended well (seed 0, 1 diverged)."


def test_without_full_fine_tuning_the_choice_is_stated() -> None:
    frames = tables(values=(math.nan, 0.88, 0.7), notes=("seed 0 out of memory", None, None))
    reference = sentences(frames)[0]
    assert reference.startswith("The reference is LoRA r=8")
    assert "It is the best curve; full fine-tuning has no result here." in reference


def test_failed_runs_and_flags_stand_beside_the_sentence() -> None:
    frames = tables(notes=(None, "seed 1 diverged", None))
    frames["runs"]["flags"] = [None] * 6 + ["loss still falling"] * 2 + [None]
    *_, rsvd, lora, meaning = sentences(frames)
    assert lora.endswith("1 point. Not all of its runs ended well: seed 1 diverged.")
    assert rsvd.endswith(" Perhaps trained too little: loss still falling (2 of 3).")
    assert "Loss still falling: the last loss on the selection slice is the lowest" in meaning


def test_of_many_curves_the_best_have_a_sentence() -> None:
    frames = tables()
    more = [
        {**frames["estimates"].loc[1].to_dict(), "rank": 10 + rank, "estimate": 0.5}
        for rank in range(9)
    ]
    frames["estimates"] = pd.concat([frames["estimates"], pd.DataFrame(more)])
    texts = sentences(frames)
    assert sum(text.startswith(("LoRA", "rSVD")) for text in texts) == 10
    assert "1 more curve: in the table Summary." in texts


def test_profiles_alone_give_the_range_of_state() -> None:
    assert sentences({"memory": tables()["memory"]}) == [
        "Optimizer state ranges from 512 B (LoRA r=8) to 2.00 KiB (Full AdamW), a factor of 4.00."
    ]


# Published numbers --------------------------------------------------------------------------------


def published(*verdicts: str) -> pd.DataFrame:
    rows = []
    for number, verdict in enumerate(verdicts):
        claim = {"claim": f"c{number}", "title": "t", "system": "A", "published": 1.0, "unit": "B"}
        rows.append({**claim, "verdict": verdict, "ours": 1.0})
    return pd.DataFrame(rows)


def test_only_claims_that_the_study_decides_are_shown_and_the_others_counted() -> None:
    table = published(
        "not yet run", "reproduced", "not comparable", "not reproduced", "not yet run"
    )
    sheet = claims.sheet(table, LABELS, "claims")
    assert [row[0].html.split(">")[1].split("<")[0] for row in sheet.rows] == [
        "not reproduced",
        "reproduced",
    ]
    assert sheet.left == 3
    assert sheet.caption == "only claims.csv shows the other 3: 2 not yet run, 1 not comparable"
    assert dict(sheet.facet[1]) == {"reproduced": 1, "not reproduced": 1}
    title, texts = answer.answer({"claims": table}, LABELS)[-1]
    assert title == "Published numbers"
    assert texts == [
        "This study decides 2 of 5: 1 not reproduced, 1 reproduced. Only claims.csv shows the other 3: "
        "2 not yet run, 1 not comparable."
    ]


def test_a_study_that_decides_no_claim_says_so_and_shows_none() -> None:
    table = published("not yet run", "not comparable")
    assert claims.sheet(table, LABELS, "claims") is None
    assert answer.answer({"claims": table}, LABELS)[-1][1] == [
        "This study decides none of 2; only claims.csv shows all of them: 1 not yet run, 1 not comparable."
    ]


def test_a_sentence_in_the_page_has_code_and_no_break_before_a_percent_sign() -> None:
    written = build._in_html("above 5 % & `search: auto` in <grid>")
    assert written == "above 5\u00a0% &amp; <code>search: auto</code> in &lt;grid&gt;"
