"""The figure of published peaks: which claims it shows, and how far the predictions are from them."""

import pandas as pd
import pytest
from matplotlib.axes import Axes

from rankwise.report import published_memory

GIB = 2**30


def claim(**changes: object) -> dict:
    row = {
        "claim": "published_memory_x",
        "system": "peft",
        "column": "peak_reserved_bytes",
        "unit": "GiB",
        "published": 10.0,
        "ours": 10.4,
        "verdict": "reproduced",
    }
    return {**row, **changes}


def table(*rows: dict) -> pd.DataFrame:
    return pd.DataFrame(rows)


def test_errors_are_in_percent_of_the_published_peak_whatever_its_unit() -> None:
    allocated = {"column": "peak_allocated_bytes", "unit": "B", "system": "litgpt"}
    second_state = "peak_allocated_bytes + optimizer_state_bytes"
    cases = published_memory.cases(
        table(
            claim(),
            claim(**allocated, published=2e9, ours=1.5e9, verdict="not reproduced"),
            claim(**{**allocated, "column": second_state}, published=4e9, ours=4e9),
        )
    )
    assert cases["error_percent"].round(9).tolist() == [4.0, -25.0, 0.0]
    assert cases["published_bytes"].tolist() == [10 * GIB, 2e9, 4e9]
    assert cases["predicted_bytes"].tolist() == [10.4 * GIB, 1.5e9, 4e9]
    assert cases["meter"].tolist() == [
        "peak_reserved_bytes",
        "peak_allocated_bytes",
        "peak_allocated_bytes",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "not yet run", "ours": float("nan")},
        {"verdict": "not comparable"},
        {"column": "optimizer_state_bytes"},
        {"column": float("nan")},
        {"unit": "%"},
    ],
)
def test_other_claims_are_left_out(changes: dict) -> None:
    assert published_memory.cases(table(claim(**changes))).empty
    with pytest.raises(ValueError, match="no claim on a peak of memory is decided"):
        published_memory.draw({"claims": table(claim(**changes))}, {})


def test_a_case_far_off_stands_at_the_edge_with_its_number() -> None:
    rows = [
        claim(ours=10.2),
        claim(ours=9.9, system="litgpt", column="peak_allocated_bytes"),
        claim(ours=14.2, system="litgpt", column="peak_allocated_bytes"),
    ]
    figure = published_memory.draw({"claims": table(*rows)}, {})
    axes: Axes = figure.axes[0]
    assert axes.get_title(loc="left") == "3 published peaks: median 2.0 % off, 2 within 5 %"
    marks = [line for line in axes.get_lines() if line.get_marker() not in ("None", "")]
    drawn = {line.get_label(): [round(float(y), 6) for y in line.get_ydata()] for line in marks}
    assert drawn == {"peft (1)": [2.0], "litgpt (2)": [-1.0, 10.0]}
    assert [line.get_fillstyle() for line in marks] == ["none", "full"]
    assert [text.get_text() for text in axes.texts] == ["+42"]
