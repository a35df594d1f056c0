"""Figures of the forward pass and of training updates: what they show of few and of many rows."""

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from helpers.figure_texts import texts
from rankwise.analysis import tables
from rankwise.report import latency, throughput
from rankwise.study import outputs
from rankwise.study.plan import Plan

BUSY = "other processes used over 20 % of the cores"
UNRANKED = ("frozen", "full", "head_only", "bitfit", "ia3")
MANY = [*UNRANKED, "lora", "lora_qkv", "dora", "hira", "vera", "oft", "miss", "qlora", "rsvd",
        "galore", "fira", "apollo", "flora", "ldadam", "vlorp"]  # fmt: skip


@pytest.fixture
def labels(plan: Plan) -> dict[str, str]:
    return dict(outputs.labels(plan))


def cell(method: str, rank: int, status: str = "ok") -> dict:
    return {"model": "tiny", "dataset": "reviews", "method": method, "rank": rank, "status": status}


def forward_rows(
    methods: list[str], sizes: tuple = (1, 8, 64), lengths: tuple = (16, 32), ranks: tuple = (2, 8)
) -> pd.DataFrame:
    """Forward passes; adapters take 1.3 times as long un-merged as merged."""
    rows = []
    for method in methods:
        merged_states = (False,) if method in UNRANKED else (False, True)
        for rank in (0,) if method in UNRANKED else ranks:
            for size in sizes:
                for length in lengths:
                    for merged in merged_states:
                        slowdown = 1 if merged or method in UNRANKED else 1.3
                        seconds = 1e-3 * (1 + size * length / 100) * slowdown
                        row = {
                            **cell(method, rank),
                            "taint": None,
                            "batch_size": size,
                            "sequence_length_tokens": length,
                            "merged": merged,
                            "forward_latency_q1_s": 0.9 * seconds,
                            "forward_latency_s": seconds,
                            "forward_latency_q3_s": 1.2 * seconds,
                        }
                        rows.append(row)
    return pd.DataFrame(rows)


def update_rows(methods: list[str], ranks: tuple = (2, 8)) -> pd.DataFrame:
    """Training updates of 35 ms; a frozen model has a forward pass of 10 ms alone."""
    rows = []
    for method in methods:
        for rank in (0,) if method in ("frozen", "full") else ranks:
            parts = {"forward_time_s": 0.01, "backward_time_s": 0.02, "optimizer_time_s": 0.005}
            if method == "frozen":
                parts = {"forward_time_s": 0.01}
            total = sum(parts.values())
            row = {
                **cell(method, rank),
                "taint": None,
                "batch_size": 8,
                "sequence_length_tokens": 32,
                "accumulation_steps": 2,
                **parts,
                "update_time_q1_s": 0.9 * total,
                "update_time_s": total,
                "update_time_q3_s": 1.1 * total,
                "throughput_samples_per_s": 16 / total,
            }
            rows.append(row)
    return pd.DataFrame(rows)


def unsupported(method: str, rank: int) -> pd.DataFrame:
    return pd.DataFrame([cell(method, rank, "unsupported")])


def widths(figure: Figure) -> list[float]:
    """Widths of the panels in inches, once they are laid out."""
    figure.draw_without_rendering()
    return [axes.bbox.width / figure.dpi for axes in figure.axes]


# Latency ---------------------------------------------------------------------------------------


def test_latency_is_drawn_at_the_longest_length_un_merged_and_merged(labels: dict) -> None:
    figure = latency.draw({"forward": forward_rows(["full", "lora"], ranks=(8,))}, labels)
    (axes,) = figure.axes
    curves = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert [line.get_linestyle() for line in curves] == ["-", "-", "--"]
    assert list(curves[0].get_ydata()) == pytest.approx([1.32, 3.56, 21.48])  # of 32 tokens, ms
    shown = texts(figure)
    assert "batch size (of 32 tokens)" in shown
    assert {"Full AdamW", "LoRA r=8", "un-merged", "merged"} <= set(shown.split("\n"))


def test_many_methods_take_several_panels_that_stay_readable(labels: dict) -> None:
    figure = latency.draw({"forward": forward_rows(MANY)}, labels)
    assert len(figure.axes) > 4
    assert min(widths(figure)) > 1
    shown = texts(figure)
    assert all(labels[method] in shown for method in MANY)
    for axes in figure.axes:
        curves = [line for line in axes.lines if len(line.get_xdata()) == 3]
        un_merged = [line for line in curves if line.get_linestyle() == "-"]
        assert len(un_merged) <= 6


def test_one_batch_size_runs_along_lengths_and_one_of_both_gives_dots(labels: dict) -> None:
    by_length = latency.draw({"forward": forward_rows(["full", "lora"], sizes=(4,))}, labels)
    assert "tokens (batch size 4)" in texts(by_length)
    dots = latency.draw({"forward": forward_rows(MANY, sizes=(4,), lengths=(16,))}, labels)
    assert "batch 4 of 16 tokens" in texts(dots)
    names = [label.get_text() for label in dots.axes[0].get_yticklabels()]
    assert names[:2] == ["Frozen", "Full AdamW"]


@pytest.mark.parametrize("sizes", [(1, 8), (8,)], ids=["curves", "dots"])
def test_failures_and_taints_are_named(sizes: tuple, labels: dict) -> None:
    rows = forward_rows(["full", "lora"], sizes=sizes, lengths=(16,), ranks=(8,))
    rows.loc[(rows["method"] == "lora") & (rows["batch_size"] == 8), "status"] = "out_of_memory"
    rows.loc[rows["method"] == "full", "taint"] = f"2 threads on 1 core; {BUSY}"
    table = pd.concat([rows, unsupported("prefix_tuning", 8)])
    shown = texts(latency.draw({"forward": table}, labels))
    assert "out of memory" in shown
    assert "unsupported" in shown
    assert {"Full AdamW†", "† 2 threads on 1 core", f"† {BUSY}"} <= set(shown.split("\n"))


# Throughput ------------------------------------------------------------------------------------


def test_updates_are_stacked_and_labelled(labels: dict) -> None:
    rows = update_rows(["frozen", "full", "lora"])
    rows.loc[rows["method"] == "full", "taint"] = BUSY
    table = pd.concat([rows, unsupported("prefix_tuning", 8)])
    figure = throughput.draw({"throughput": table}, labels)
    (axes,) = figure.axes
    in_row_1 = [bar for bar in axes.patches if bar.get_y() < 1 < bar.get_y() + bar.get_height()]
    milliseconds = [(bar.get_x(), bar.get_width()) for bar in in_row_1]  # of full fine-tuning
    assert milliseconds == [pytest.approx(bar) for bar in ((0, 10), (10, 20), (30, 5))]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[:3] == ["Frozen", "Full AdamW†", "LoRA r=2"]
    shown = set(texts(figure).split("\n"))
    assert {"samples/s", "457", "1,600", "unsupported", f"† {BUSY}"} <= shown
    assert "a training update (ms) of 2 x 8 x 32 tokens" in shown


@pytest.mark.parametrize("methods", [["full", "lora"], MANY], ids=["few", "many"])
def test_few_and_many_updates_leave_room_for_the_panel(methods: list[str], labels: dict) -> None:
    assert min(widths(throughput.draw({"throughput": update_rows(methods)}, labels))) > 2


# Both ------------------------------------------------------------------------------------------


BOTH = [(latency, "forward", forward_rows), (throughput, "throughput", update_rows)]


@pytest.mark.parametrize(("module", "table", "rows"), BOTH, ids=["latency", "throughput"])
def test_a_table_of_undisturbed_measurements_is_drawn_as_it_is_read(
    module, table: str, rows, labels: dict, tmp_path: Path
) -> None:
    """The column of reasons is empty then, and an empty column is read as floats."""
    tables.write(rows(["full", "lora"]), tmp_path / "table")
    read = tables.read(tmp_path / "table.csv")
    assert read["taint"].isna().all()
    module.draw({table: read}, labels)


@pytest.mark.parametrize(("module", "table", "rows"), BOTH, ids=["latency", "throughput"])
def test_failures_alone_are_drawn_and_an_empty_table_is_an_error(
    module, table: str, rows, labels: dict
) -> None:
    assert "unsupported" in texts(module.draw({table: unsupported("prefix_tuning", 8)}, labels))
    failed = rows(["lora"])
    failed = failed[[name for name in failed if not name.endswith("_s")]]
    figure = module.draw({table: failed.assign(status="out_of_memory")}, labels)
    assert "out of memory" in texts(figure)
    empty = pd.DataFrame(columns=["model", "dataset", "method", "rank", "status"])
    with pytest.raises(ValueError, match="no cell of profile"):
        module.draw({table: empty}, labels)
