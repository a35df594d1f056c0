"""Figures of the forward pass and of training updates: what they show, from few rows and from many."""

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from rankwise.analysis import tables
from rankwise.report import latency, throughput
from rankwise.study.outputs import labels as named
from rankwise.study.plan import Plan

BUSY = "other processes used over 20 % of the cores"
MANY = ["frozen", "full", "head_only", "bitfit", "lora", "lora_qkv", "dora", "hira", "ia3", "vera", "oft", "miss", "qlora", "rsvd", "galore",
        "fira", "apollo", "flora", "ldadam", "vlorp"]  # fmt: skip


@pytest.fixture
def labels(plan: Plan) -> dict[str, str]:
    return dict(named(plan))


def forward_rows(
    methods: list[str], sizes: tuple = (1, 8, 64), lengths: tuple = (16, 32), ranks: tuple = (2, 8)
) -> pd.DataFrame:
    rows = []
    for method in methods:
        bare = method in ("frozen", "full", "head_only", "bitfit", "ia3")
        grid = [
            (r, b, t, m)
            for r in ((0,) if bare else ranks)
            for b in sizes
            for t in lengths
            for m in (False, *((True,) * (not bare)))
        ]
        for rank, size, length, merged in grid:
            seconds = 1e-3 * (1 + size * length / 100) * (1 if merged or bare else 1.3)
            times = {
                "forward_latency_q1_s": 0.9 * seconds,
                "forward_latency_s": seconds,
                "forward_latency_q3_s": 1.2 * seconds,
            }
            cell = {
                "model": "tiny",
                "dataset": "reviews",
                "method": method,
                "rank": rank,
                "status": "ok",
                "taint": None,
            }
            rows.append(
                {
                    **cell,
                    "batch_size": size,
                    "sequence_length_tokens": length,
                    "merged": merged,
                    **times,
                }
            )
    return pd.DataFrame(rows)


def update_rows(methods: list[str], ranks: tuple = (2, 8)) -> pd.DataFrame:
    rows = []
    for method in methods:
        for rank in (0,) if method in ("frozen", "full") else ranks:
            parts = {"forward_time_s": 0.01, "backward_time_s": 0.02, "optimizer_time_s": 0.005}
            if method == "frozen":
                parts = {"forward_time_s": 0.01}
            total = sum(parts.values())
            times = {
                "update_time_q1_s": 0.9 * total,
                "update_time_s": total,
                "update_time_q3_s": 1.1 * total,
            }
            cell = {
                "model": "tiny",
                "dataset": "reviews",
                "method": method,
                "rank": rank,
                "status": "ok",
                "taint": None,
            }
            sizes = {"batch_size": 8, "sequence_length_tokens": 32, "accumulation_steps": 2}
            rows.append({**cell, **sizes, **parts, **times, "throughput_samples_per_s": 16 / total})
    return pd.DataFrame(rows)


def unsupported(method: str, rank: int) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "model": "tiny",
                "dataset": "reviews",
                "method": method,
                "rank": rank,
                "status": "unsupported",
            }
        ]
    )


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def widths(figure: Figure) -> list[float]:
    """Of the panels, in inches, once laid out."""
    figure.draw_without_rendering()
    return [axes.bbox.width / figure.dpi for axes in figure.axes]


def test_latency_is_drawn_at_the_longest_length_un_merged_and_merged(
    labels: dict[str, str],
) -> None:
    figure = latency.draw({"forward": forward_rows(["full", "lora"], ranks=(8,))}, labels)
    (axes,) = figure.axes
    curves = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert [line.get_linestyle() for line in curves] == ["-", "-", "--"]
    assert list(curves[0].get_ydata()) == pytest.approx([1.32, 3.56, 21.48])  # of 32 tokens, in ms
    assert "batch size (of 32 tokens)" in texts(figure)
    assert {"Full AdamW", "LoRA r=8", "un-merged", "merged"} <= set(texts(figure).split("\n"))


def test_many_methods_take_several_panels_and_none_repeats_a_colour(labels: dict[str, str]) -> None:
    figure = latency.draw({"forward": forward_rows(MANY)}, labels)
    assert len(figure.axes) > 4
    assert min(widths(figure)) > 1
    shown = texts(figure)
    assert all(labels[method] in shown for method in MANY)
    for axes in figure.axes:
        solid = [
            line
            for line in axes.lines
            if len(line.get_xdata()) == 3 and line.get_linestyle() == "-"
        ]
        assert len(solid) <= latency.DIRECT


def test_one_batch_size_runs_along_lengths_and_one_of_both_gives_dots(
    labels: dict[str, str],
) -> None:
    assert "tokens (batch size 4)" in texts(
        latency.draw({"forward": forward_rows(["full", "lora"], sizes=(4,))}, labels)
    )
    dots = latency.draw({"forward": forward_rows(MANY, sizes=(4,), lengths=(16,))}, labels)
    assert "batch 4 of 16 tokens" in texts(dots)
    assert [label.get_text() for label in dots.axes[0].get_yticklabels()][:2] == [
        "Frozen",
        "Full AdamW",
    ]


@pytest.mark.parametrize(("module", "rows"), [(latency, forward_rows), (throughput, update_rows)])
def test_a_quiet_machines_table_is_drawn_as_it_is_read(
    module, rows, labels: dict[str, str], tmp_path: Path
) -> None:
    """Where nothing disturbed a measurement, the column that would say so holds nothing."""
    stem = tmp_path / "table"
    tables.write(rows(["full", "lora"]), stem)
    read = tables.read(stem.with_suffix(".csv"))
    assert read["taint"].isna().all()
    module.draw(dict.fromkeys(("forward", "throughput"), read), labels)


def test_failures_and_taints_are_named_in_both_ways_of_drawing(labels: dict[str, str]) -> None:
    for sizes in ((1, 8), (8,)):
        rows = forward_rows(["full", "lora"], sizes=sizes, lengths=(16,), ranks=(8,))
        rows.loc[(rows["method"] == "lora") & (rows["batch_size"] == 8), "status"] = "out_of_memory"
        rows.loc[rows["method"] == "full", "taint"] = f"2 threads on 1 core; {BUSY}"
        shown = texts(
            latency.draw({"forward": pd.concat([rows, unsupported("prefix_tuning", 8)])}, labels)
        )
        assert "out of memory" in shown
        assert "unsupported" in shown
        assert {"Full AdamW†", "† 2 threads on 1 core", f"† {BUSY}"} <= set(shown.split("\n"))


def test_updates_are_stacked_and_labelled(labels: dict[str, str]) -> None:
    rows = update_rows(["frozen", "full", "lora"])
    rows.loc[rows["method"] == "full", "taint"] = BUSY
    figure = throughput.draw(
        {"throughput": pd.concat([rows, unsupported("prefix_tuning", 8)])}, labels
    )
    (axes,) = figure.axes
    bars = [
        (bar.get_x(), bar.get_width())
        for bar in axes.patches
        if bar.get_y() < 1 < bar.get_y() + bar.get_height()
    ]
    assert bars == [
        pytest.approx(pair) for pair in ((0, 10), (10, 20), (30, 5))
    ]  # full fine-tuning, ms
    assert [label.get_text() for label in axes.get_yticklabels()][:3] == [
        "Frozen",
        "Full AdamW†",
        "LoRA r=2",
    ]
    shown = set(texts(figure).split("\n"))
    assert {"samples/s", "457", "1,600", "unsupported", f"† {BUSY}"} <= shown
    assert "a training update (ms) of 2 x 8 x 32 tokens" in shown


def test_few_and_many_updates_keep_their_panel(labels: dict[str, str]) -> None:
    for methods in (["full", "lora"], MANY):
        assert min(widths(throughput.draw({"throughput": update_rows(methods)}, labels))) > 2


@pytest.mark.parametrize("figure", [latency, throughput])
def test_only_failures_still_draw_and_nothing_at_all_is_an_error(
    figure: object, labels: dict[str, str]
) -> None:
    table = "forward" if figure is latency else "throughput"
    assert "unsupported" in texts(figure.draw({table: unsupported("prefix_tuning", 8)}, labels))
    rows = (forward_rows if figure is latency else update_rows)(["lora"])
    rows = rows.drop(columns=[name for name in rows if name.endswith("_s")]).assign(
        status="out_of_memory"
    )
    assert "out of memory" in texts(figure.draw({table: rows}, labels))
    with pytest.raises(ValueError, match="no cell of profile"):
        figure.draw(
            {table: pd.DataFrame(columns=["model", "dataset", "method", "rank", "status"])}, labels
        )
