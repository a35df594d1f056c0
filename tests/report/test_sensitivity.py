"""The figure of a search: loss by learning rate, what was chosen, and what failed."""

import math

import pandas as pd
import pytest

from rankwise.report import sensitivity

LABELS = {"full": "Full AdamW", "lora": "LoRA"}


def search_table(losses: dict[tuple[str, int], dict[float, float | None]]) -> pd.DataFrame:
    """A table with one seed, from (method, rank) -> learning rate -> loss.

    A trial without a loss diverged. The lowest loss of each curve is chosen.
    """
    rows = []
    for (method, rank), curve in losses.items():
        known = [loss for loss in curve.values() if loss is not None]
        for rate, loss in curve.items():
            cell = {"model": "tiny", "dataset": "reviews", "method": method, "rank": rank}
            row = {
                **cell,
                "seed": 0,
                "trial": f"lr{rate}",
                "learning_rate": rate,
                "status": "diverged" if loss is None else "ok",
                "selected": loss is not None and loss == min(known),
                "selection_loss_nats": math.nan if loss is None else loss,
            }
            rows.append(row)
    return pd.DataFrame(rows)


def test_rings_mark_the_chosen_rates_and_crosses_the_failed_trials() -> None:
    losses = {
        ("full", 0): {1e-3: 0.5, 1e-2: 0.2, 1e-1: None},
        ("lora", 8): {1e-3: 0.7, 1e-2: 0.6, 1e-1: 0.4},
    }
    (axes,) = sensitivity.draw({"search": search_table(losses)}, LABELS).axes
    rings = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert [ring.get_xydata().tolist() for ring in rings] == [[[1e-2, 0.2]], [[1e-1, 0.4]]]
    (cross,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert cross.get_xdata()[0] == 1e-1
    assert axes.get_xscale() == "log"
    assert "failed: Full AdamW" in axes.get_xlabel()
    assert "chosen at the end of the rates tried: LoRA r=8" in axes.get_xlabel()


def test_the_figure_says_when_there_is_nothing_and_when_everything_failed() -> None:
    nothing = search_table({("full", 0): {1e-3: 0.5}}).iloc[:0]
    with pytest.raises(ValueError, match="no trials"):
        sensitivity.draw({"search": nothing}, LABELS)
    failed = search_table({("full", 0): {1e-3: None, 1e-2: None}})
    (axes,) = sensitivity.draw({"search": failed}, LABELS).axes
    assert [line.get_marker() for line in axes.lines] == ["x", "x"]


def test_many_curves_have_a_panel_for_each_method() -> None:
    losses = {("full", 0): {1e-3: 0.5, 1e-2: 0.1}}
    losses |= {("lora", 2**power): {1e-3: 0.5, 1e-2: 0.4} for power in range(8)}
    figure = sensitivity.draw({"search": search_table(losses)}, LABELS)
    titles = [axes.get_title(loc="left").rpartition(" / ")[2] for axes in figure.axes]
    assert titles == ["without a rank", "LoRA"]
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
