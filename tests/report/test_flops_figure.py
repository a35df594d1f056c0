"""The figure of FLOPs by phase."""

import pandas as pd
import pytest

from helpers.profiling import profile_request
from rankwise.measure.flops.count import flops
from rankwise.report import flops as figure
from rankwise.study import outputs
from rankwise.study.plan import Plan

SIZES = {
    "forward_flops": 10,
    "backward_flops": 20,
    "optimizer_flops": 3,
    "optimizer_amortised_flops": 5,
}


def frame(number: int) -> pd.DataFrame:
    """So many rows, the last of them unsupported."""
    cell = {"model": "m", "dataset": "d", "status": "ok", "accumulation_steps": 4}
    rows = [{**cell, "method": "full", "rank": 0, **SIZES}]
    rows += [{**cell, "method": "lora", "rank": rank, **SIZES} for rank in range(1, number - 1)]
    rows.append({**cell, "method": "ldadam", "rank": 1, "status": "unsupported"})
    return pd.DataFrame(rows)


def test_phases_of_an_update_add_up_and_a_failed_row_has_none() -> None:
    parts = figure.phases(frame(3))
    assert parts.iloc[0].tolist() == [40, 80, 3, 2]
    assert parts.iloc[2].isna().all()


@pytest.mark.parametrize("method", ["full", "rsvd", "mezo"])
def test_phases_add_up_to_the_flops_of_an_update(method: str) -> None:
    """MeZO's second forward pass included."""
    metrics = flops(profile_request("flops", method, accumulation_steps=3))["metrics"]
    (parts,) = figure.phases(pd.DataFrame([{**metrics, "status": "ok"}])).itertuples(index=False)
    assert sum(parts) == metrics["update_flops"]


@pytest.mark.parametrize("number", [3, 40])
def test_no_text_of_the_figure_overlaps_another(number: int, plan: Plan) -> None:
    drawn = figure.draw({"flops": frame(number)}, dict(outputs.labels(plan)))
    drawn.draw_without_rendering()
    axes = drawn.axes[0]
    texts = [
        *axes.texts,
        *axes.get_yticklabels(),
        *axes.get_xticklabels(),
        axes.xaxis.label,
        axes.title,
        *drawn.legends[0].texts,
    ]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    assert any(text == "unsupported" for text, _ in boxes)
    for position, (text, box) in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= drawn.bbox.x1
        for other_text, other_box in boxes[:position]:
            overlaps = box.padded(-1).overlaps(other_box.padded(-1))
            assert not overlaps, (text, other_text)


def test_no_profile_no_figure(plan: Plan) -> None:
    with pytest.raises(ValueError, match="no FLOPs profile"):
        figure.draw({"flops": frame(3).iloc[:0]}, dict(outputs.labels(plan)))
