"""numbers.json and numbers.tex: every number of the summary by name, with the runs behind it."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from rankwise.analysis import tables
from rankwise.report.numbers import latex, numbers, of_absent, of_claims, text

NOTHING = float("nan")
LABELS = [["full", "Full"], ["lora", "LoRA (q, k, v)"]]


def run(method: str, rank: int, seed: int, status: str, digest: str) -> dict:
    cell = {"model": "m", "dataset": "d", "method": method, "rank": rank, "seed": seed}
    metrics = {"accuracy_fraction": 0.9, "trainable_parameters": 1234567}
    return {**cell, "status": status, "request_digest": digest, **metrics}


def profile(method: str, rank: int) -> dict:
    cell = {"model": "m", "dataset": "d", "method": method, "rank": rank}
    return {**cell, "status": "ok", "request_digest": f"m{method}", "optimizer_state_bytes": 1}


@pytest.fixture
def written(tmp_path: Path) -> tuple[dict, str]:
    """numbers.json and numbers.tex of two curves: the second has a seed that diverged."""
    runs = [
        run("full", 0, 0, "ok", "aa"),
        run("full", 0, 1, "ok", "0012345678901234"),
        run("lora", 8, 0, "ok", "cc"),
        run("lora", 8, 1, "diverged", "dd"),
    ]
    summary = {
        "model": "m",
        "dataset": "d",
        "method": ["Full", "LoRA (q, k, v)"],
        "rank": [0, 8],
        "n": [2, 1],
        "accuracy_percent": [90.0, 81.25],
        "accuracy_low_percent": [88.004, NOTHING],
        "accuracy_high_percent": [92.0, NOTHING],
        "trainable_parameters": [1234567, 8],
        "optimizer_state_mib": [0.25, 1e-7],
        "perplexity": [NOTHING, NOTHING],
        "status": ["ok", "diverged (1 of 2)"],
    }
    verdicts = ["reproduced", "reproduced", "out of memory"]
    frames = {
        "tables/summary": pd.DataFrame(summary),
        "tables/runs": pd.DataFrame(runs),
        "tables/memory": pd.DataFrame([profile("full", 0), profile("lora", 8)]),
        "claims": pd.DataFrame({"claim": ["a", "b", "c"], "verdict": verdicts}),
    }
    for name, frame in frames.items():
        tables.write(frame, tmp_path / "results" / name)
    files = [f"{name}.csv" for name in frames]
    output = tmp_path / "results/numbers.json"
    numbers({"labels": LABELS, "tables": files}, output)
    return json.loads(output.read_text()), output.with_suffix(".tex").read_text()


def test_a_number_has_value_text_unit_interval_and_runs(written) -> None:
    by_name, _ = written
    assert by_name["m/d/full/r0/accuracy_percent"] == {
        "value": 90.0,
        "text": "90.00",
        "unit": "%",
        "low": 88.004,
        "high": 92.0,
        "runs": ["0012345678901234", "aa"],
    }
    lora = by_name["m/d/lora/r8/accuracy_percent"]
    assert (lora["low"], lora["high"]) == (None, None)
    assert lora["runs"] == ["cc"]  # the seed that diverged is not in the mean
    assert by_name["m/d/lora/r8/optimizer_state_mib"]["runs"] == ["mlora"]
    assert by_name["m/d/full/r0/trainable_parameters"]["text"] == "1,234,567"
    count = by_name["m/d/full/r0/n"]
    assert (count["value"], count["unit"]) == (2, "runs")
    # Missing numbers have no name, and the ends of an interval have none of their own.
    assert not [name for name in by_name if "perplexity" in name or "_low_" in name]


def test_claims_are_counted_by_verdict(written) -> None:
    by_name, _ = written
    counts = {name: by_name[name]["value"] for name in by_name if name.startswith("claims/")}
    assert counts == {
        "claims/reproduced": 2,
        "claims/not_reproduced": 0,
        "claims/not_comparable": 0,
        "claims/not_yet_run": 0,
        "claims/out_of_memory": 1,
        "claims/total": 3,
    }
    assert of_claims(None) == {}


def test_absent_results_are_counted_by_measurement_and_status() -> None:
    absent = [("train", "failed"), ("train", "not run"), ("train", "not run"), ("flops", "failed")]
    cells = [{"measurement": measurement, "status": status} for measurement, status in absent]
    by_name = of_absent({"cells": cells})
    assert {name: entry["value"] for name, entry in by_name.items()} == {
        "absent/train/failed": 1,
        "absent/train/not_run": 2,
        "absent/flops/failed": 1,
    }


@pytest.mark.parametrize(("value", "column", "shown"), [
    (97.754, "accuracy_percent", "97.75"),
    (14.3649, "perplexity", "14.36"),
    (1e9, "trainable_parameters", "1,000,000,000"),
    (0.62272644, "optimizer_state_mib", "0.6227"),
    (173.29, "peak_mib", "173.3"),
    (123456.7, "peak_mib", "123,457"),
    (-0.5, "difference", "-0.5"),
    (1.5e-7, "optimizer_state_mib", "1.5e-07"),
    (0, "trainable_parameters", "0"),
])  # fmt: skip
def test_texts(value: float, column: str, shown: str) -> None:
    assert text(value, column) == shown


def macros(tex: str) -> dict[str, str]:
    return dict(re.findall(r"^\\rankwise@number\{([^{}]+)\}\{(.*)\}$", tex, flags=re.MULTILINE))


def test_every_number_is_one_macro_without_special_characters_of_tex(written) -> None:
    by_name, tex = written
    defined = macros(tex)
    ends = set()
    for name, entry in by_name.items():
        ends |= {f"{name}/{end}" for end in ("low", "high") if entry[end] is not None}
    assert set(defined) == set(by_name) | ends
    assert defined["m/d/full/r0/accuracy_percent/low"] == "88.00"
    assert defined["m/d/lora/r8/optimizer_state_mib"] == r"\ensuremath{1\times10^{-7}}"
    preamble = tex.partition("\\rankwise@number{m")[0]
    assert preamble.count("{") == preamble.count("}")
    for name, shown in defined.items():
        assert re.fullmatch(r"[\w/.]+", name)
        assert not re.search(r"[%#&$~_^]", re.sub(r"\\ensuremath\{.*\}", "", shown))
    lines = tex.count("\\rankwise@number{m")
    assert lines == len([name for name in defined if name.startswith("m/")])


def test_a_minus_is_a_minus() -> None:
    entry = {"value": -0.5, "text": "-0.5", "low": None, "high": None}
    assert macros(latex({"x/difference": entry})) == {"x/difference": r"\ensuremath{-}0.5"}
