"""The figure of a search: loss by learning rate, what was chosen, and what failed."""

import math

import pandas as pd
import pytest

LABELS = {"full": "Full AdamW", "lora": "LoRA"}


def search_table(**losses: dict[float, float | None]) -> pd.DataFrame:
    """Rows of the table, by `method_rank`; no loss is a trial that diverged."""
    rows = []
    for name, curve in losses.items():
        method, rank = name.split("_")
        best = (
            min((loss, rate) for rate, loss in curve.items() if loss is not None)[1]
            if any(curve.values())
            else None
        )
        rows += [
            {"model": "tiny", "dataset": "reviews", "method": method, "rank": int(rank), "seed": 0, "trial": f"lr{rate}",
             "learning_rate": rate, "status": "diverged" if loss is None else "ok", "selected": rate == best,
             "selection_loss_nats": math.nan if loss is None else loss} for rate, loss in curve.items()
        ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_figure_rings_what_was_chosen_and_shows_what_failed() -> None:
    from rankwise.report import sensitivity

    table = search_table(
        full_0={1e-3: 0.5, 1e-2: 0.2, 1e-1: None}, lora_8={1e-3: 0.7, 1e-2: 0.6, 1e-1: 0.4}
    )
    (axes,) = sensitivity.draw({"search": table}, LABELS).axes
    rings = [
        line.get_xydata().tolist() for line in axes.lines if line.get_markerfacecolor() == "none"
    ]
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
    (axes,) = sensitivity.draw(
        {"search": search_table(full_0={1e-3: None, 1e-2: None})}, LABELS
    ).axes
    assert [line.get_marker() for line in axes.lines] == ["x", "x"]


def test_many_curves_have_a_panel_a_method() -> None:
    from rankwise.report import sensitivity

    curves = {f"lora_{rank}": {1e-3: 0.5, 1e-2: 0.4} for rank in (1, 2, 4, 8, 16, 32, 64, 128)}
    figure = sensitivity.draw(
        {"search": search_table(full_0={1e-3: 0.5, 1e-2: 0.1}, **curves)}, LABELS
    )
    assert [axes.get_title(loc="left").rpartition(" / ")[2] for axes in figure.axes] == [
        "without a rank",
        "LoRA",
    ]
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
