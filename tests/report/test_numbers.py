"""numbers.json and numbers.tex: every number of the summary by a name that a text can use, with the runs behind it."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from rankwise.analysis import tables
from rankwise.report.numbers import latex, numbers, of_claims, text

CURVES = [("full", 0, "Full"), ("lora", 8, "LoRA (q, k, v)")]
LABELS = [[method, label] for method, _, label in CURVES]


def run(method: str, rank: int, seed: int, status: str, digest: str) -> dict:
    cell = {"model": "m", "dataset": "d", "method": method, "rank": rank, "seed": seed}
    return {
        **cell,
        "status": status,
        "request_digest": digest,
        "accuracy_fraction": 0.9,
        "trainable_parameters": 1234567,
    }


@pytest.fixture
def made(tmp_path: Path) -> tuple[dict, str]:
    """numbers.json and numbers.tex of two curves: one with an interval, one with a seed that diverged."""
    runs = [
        run("full", 0, 0, "ok", "aa"),
        run("full", 0, 1, "ok", "0012345678901234"),
        run("lora", 8, 0, "ok", "cc"),
    ]
    runs += [run("lora", 8, 1, "diverged", "dd")]
    memory = [
        {
            "model": "m",
            "dataset": "d",
            "method": m,
            "rank": r,
            "status": "ok",
            "request_digest": f"m{m}",
            "optimizer_state_bytes": 1,
        }
        for m, r, _ in CURVES
    ]
    summary = pd.DataFrame({
        "model": "m", "dataset": "d", "method": [label for *_, label in CURVES], "rank": [0, 8], "n": [2, 1],
        "accuracy_percent": [90.0, 81.25], "accuracy_low_percent": [88.004, float("nan")],
        "accuracy_high_percent": [92.0, float("nan")], "trainable_parameters": [1234567, 8], "optimizer_state_mib": [0.25, 1e-7],
        "perplexity": [float("nan")] * 2, "status": ["ok", "diverged (1 of 2)"],
    })  # fmt: skip
    claims = pd.DataFrame(
        {"claim": list("abc"), "verdict": ["reproduced", "reproduced", "out of memory"]}
    )
    for name, frame in (("runs", runs), ("memory", memory), ("summary", summary)):
        tables.write(pd.DataFrame(frame), tmp_path / f"results/tables/{name}")
    tables.write(claims, tmp_path / "results/claims")
    files = [
        "results/tables/summary.csv",
        "results/tables/runs.csv",
        "results/tables/memory.csv",
        "results/claims.csv",
    ]
    numbers({"labels": LABELS, "tables": files}, tmp_path / "results/numbers.json")
    return json.loads((tmp_path / "results/numbers.json").read_text()), (
        tmp_path / "results/numbers.tex"
    ).read_text()


def test_a_number_has_value_text_unit_interval_and_runs(made) -> None:
    found, _ = made
    assert found["m/d/full/r0/accuracy_percent"] == {
        "value": 90.0, "text": "90.00", "unit": "%", "low": 88.004, "high": 92.0, "runs": ["0012345678901234", "aa"],
    }  # fmt: skip
    alone = found["m/d/lora/r8/accuracy_percent"]
    assert (alone["low"], alone["high"], alone["runs"]) == (
        None,
        None,
        ["cc"],
    )  # the seed that diverged is not in the mean
    assert found["m/d/lora/r8/optimizer_state_mib"]["runs"] == ["mlora"]
    assert found["m/d/full/r0/trainable_parameters"]["text"] == "1,234,567"
    assert (found["m/d/full/r0/n"]["value"], found["m/d/full/r0/n"]["unit"]) == (2, "runs")
    assert not [
        name for name in found if "perplexity" in name or "_low_" in name
    ]  # no numbers; ends of an interval


def test_claims_are_counted_by_verdict(made) -> None:
    counts = {name: one["value"] for name, one in made[0].items() if name.startswith("claims/")}
    none = {"claims/not_reproduced": 0, "claims/not_comparable": 0, "claims/not_yet_run": 0}
    assert counts == {**none, "claims/reproduced": 2, "claims/out_of_memory": 1, "claims/total": 3}
    assert of_claims(None) == {}


@pytest.mark.parametrize(("value", "column", "shown"), [
    (97.754, "accuracy_percent", "97.75"), (14.3649, "perplexity", "14.36"), (1e9, "trainable_parameters", "1,000,000,000"),
    (0.62272644, "optimizer_state_mib", "0.6227"), (173.29, "peak_mib", "173.3"), (123456.7, "peak_mib", "123,457"),
    (-0.5, "difference", "-0.5"), (1.5e-7, "optimizer_state_mib", "1.5e-07"), (0, "trainable_parameters", "0"),
])  # fmt: skip
def test_texts(value: float, column: str, shown: str) -> None:
    assert text(value, column) == shown


def macros(tex: str) -> dict[str, str]:
    return dict(re.findall(r"^\\rankwise@number\{([^{}]+)\}\{(.*)\}$", tex, flags=re.MULTILINE))


def test_every_number_is_one_macro_and_nothing_in_it_means_something_else_to_tex(made) -> None:
    found, tex = made
    defined = macros(tex)
    ends = {
        f"{name}/{end}"
        for name, one in found.items()
        for end in ("low", "high")
        if one[end] is not None
    }
    assert set(defined) == set(found) | ends
    assert defined["m/d/full/r0/accuracy_percent/low"] == "88.00"
    assert defined["m/d/lora/r8/optimizer_state_mib"] == r"\ensuremath{1\times10^{-7}}"
    head, *lines = tex.split("\\rankwise@number{m")
    assert head.count("{") == head.count("}")
    assert all(re.fullmatch(r"[\w/.]+", name) for name in defined)
    assert not re.search(
        r"[%#&$~_^]", "".join(re.sub(r"\\ensuremath\{.*\}", "", one) for one in defined.values())
    )
    assert len(lines) == sum(name.startswith("m/") for name in defined)


def test_a_minus_is_a_minus() -> None:
    one = {"value": -0.5, "text": "-0.5", "low": None, "high": None}
    assert macros(latex({"x/difference": one})) == {"x/difference": r"\ensuremath{-}0.5"}
