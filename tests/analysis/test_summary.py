"""The paper's table: what is best, tied, undecided, failed or unequal is shown as such, in Markdown and in LaTeX."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.planted import MARGINS, Scores, study, tables_of
from helpers.table_notes import notes_of
from rankwise.analysis import latex, tables
from rankwise.analysis.costs import Costs, costs
from rankwise.analysis.evidence import comparisons, estimates
from rankwise.analysis.scores import groups, mixed
from rankwise.analysis.summary import summary
from rankwise.analysis.summary_notes import notes

LABELS = {"full": "Full", "lora": "LoRA", "rsvd": "rSVD", "head_only": "Head only"}
TWO_POINTS = {**MARGINS, "accuracy_fraction": 0.02}
PAIR = {("full", 0): [[1, 0]] * 2, ("lora", 4): [[1, 0]] * 2}
CELLS = pd.DataFrame(
    [
        {"model": "m", "dataset": "d", "method": "full", "rank": 0},
        {"model": "m", "dataset": "d", "method": "lora", "rank": 4},
    ]
)  # of PAIR
Frames = dict[str, pd.DataFrame]


def frames_of(folder: Path, curves: Scores, margins: dict = MARGINS) -> Frames:
    """The tables that the summary reads."""
    runs, examples = tables_of(study(folder, curves))
    found = groups(runs, examples)
    return {"runs": runs, "estimates": estimates(found), "comparisons": comparisons(found, margins)}


def made(frames: Frames, margins: dict = MARGINS) -> tuple[pd.DataFrame, list[str], Costs]:
    """The summary, its notes and the costs that it shows."""
    priced = costs(frames)
    frame = summary(frames, priced, LABELS)
    return frame, notes(frame, priced, margins), priced


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    """Full and LoRA equal, rSVD worse, a head whose seeds differ much: best, tied, worse, undecided."""
    chance = np.random.default_rng(0)
    hard = chance.random(4000)

    def at(level: float, *luck: float) -> list:
        found = []
        for one in luck:
            is_flipped = chance.random(4000) < 0.001
            found.append(((hard < level + one) ^ is_flipped).astype(float))
        return found

    even = (0.0, 0.001, -0.001, 0.0)
    curves = {
        ("full", 0): at(0.9, *even),
        ("lora", 4): at(0.8985, *even),
        ("rsvd", 4): at(0.8, *even),
        ("head_only", 0): at(0.8, 0.15, -0.3, 0.1, -0.1),
    }
    return frames_of(tmp_path_factory.mktemp("four"), curves, TWO_POINTS)


# Marks --------------------------------------------------------------------------------------------


def test_best_is_bold_and_what_is_tied_or_undecided_is_marked(four: Frames) -> None:
    frame, lines, _ = made(four, TWO_POINTS)
    best = dict(zip(frame["method"], frame["best"], strict=True))
    assert best == {"Full": "best", "LoRA": "tied", "rSVD": "", "Head only": "undecided"}
    text, tex = tables.markdown(frame, lines), latex.table(frame, lines)
    rows = {line.split(" | ")[2]: line for line in text.splitlines()[2:6]}
    full = frame.loc[0]
    ends = f"[{full.accuracy_low_percent:.2f}, {full.accuracy_high_percent:.2f}]"
    shown = f"{full.accuracy_percent:.2f} {ends}"
    assert f"**{shown}**" in rows["Full"]
    assert rf"\textbf{{{shown}}}" in tex
    assert "†" in rows["LoRA"]
    assert "‡" in rows["Head only"]
    assert not {*"†‡*"} & {*rows["rSVD"]}
    assert r"]$^{\dagger}$ &" in tex
    assert r"]$^{\ddagger}$ &" in tex
    assert "inside the margin, 2 points" in text
    assert "m/d: 32 samples an update, 10 updates, 80 samples, 802 tokens." in text


def test_a_column_of_intervals_is_one_column_of_the_page(four: Frames) -> None:
    frame, *_ = made(four)
    shown = tables.formatted(frame, str, str)
    assert len(tables.numeric(frame)) == len(shown.columns)
    assert "accuracy (%)" in shown
    assert not [name for name in shown if "low" in name or name in ("best", "warning", "updates")]


def test_a_curve_with_a_failed_run_is_never_the_best_and_says_why(tmp_path: Path) -> None:
    good, bad = [1, 1, 1, 1, 0], [1, 0, 1, 0, 0]
    curves = {
        ("full", 0): [bad, bad],
        ("lora", 4): [good, "diverged"],
        ("rsvd", 4): "out_of_memory",
    }
    frame, lines, _ = made(frames_of(tmp_path, curves))
    assert list(frame["best"]) == ["best", "", ""]
    failed = ["diverged (1 of 2): as planted", "out of memory (2 of 2): as planted"]
    assert list(frame["status"]) == ["ok", *failed]
    text = tables.markdown(frame, lines)
    assert "| rSVD | 4 | 0 |  |" in text
    assert "Not ranked: curves of which a run failed." in text
    assert "Unmarked: worse" not in text


def test_one_seed_says_so_and_shows_no_interval(tmp_path: Path) -> None:
    curves = {("full", 0): [[1, 1, 1, 0]], ("lora", 4): [[1, 0, 0, 0]]}
    frame, lines, _ = made(frames_of(tmp_path, curves))
    text = tables.markdown(frame, lines)
    assert "**75.00**" in text
    assert "25.00‡" in text
    assert "one seed, no interval" in text
    assert "[" not in text


# Unequal runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("column", "value", "expected"), [
    ("effective_batch_size", 16, "effective batch size: 32, but 16 for lora r4"),
    ("updates", 5, "updates: 10, but 5 for lora r4"),
    ("tokens", 7, "tokens: 800, but 7 for lora r4"),
])  # fmt: skip
def test_unequal_runs_get_a_warning_in_every_form(
    column: str, value: int, expected: str, tmp_path: Path
) -> None:
    found = frames_of(tmp_path, {**PAIR, ("rsvd", 4): [[1, 0]] * 2})
    assert mixed(found["runs"]) == {}, "tokens differ by seed alone"
    found["runs"].loc[found["runs"]["method"] == "lora", column] = value
    frame, lines, _ = made(found)
    warning = f"m/d compares unequal runs: {expected}"
    assert set(frame["warning"]) == {warning}
    for text in (tables.markdown(frame, lines), latex.table(frame, lines)):
        assert f"Warning: {warning}." in text
    tables.write(frame, tmp_path / "summary", lines)
    assert notes_of(tmp_path / "summary.csv") == lines


def test_a_method_that_trains_nothing_is_no_unequal_run(tmp_path: Path) -> None:
    runs = frames_of(tmp_path, {("full", 0): [[1, 0]] * 2, ("head_only", 0): [[1, 0]] * 2})["runs"]
    runs.loc[runs["method"] == "head_only", ["updates", "samples", "tokens"]] = 0
    assert mixed(runs) == {}


# Costs --------------------------------------------------------------------------------------------


def test_costs_stand_beside_in_their_units(tmp_path: Path) -> None:
    found = frames_of(tmp_path, PAIR)
    cells = CELLS.assign(status="ok")
    on_cpu = cells.assign(device="cpu", batch_size=8)
    states = [2**21, 2**20]
    found["memory"] = cells.assign(weights_bytes=4, gradients_bytes=2, optimizer_state_bytes=states)
    peaks = [2**24, 2**23]
    found["ledger"] = on_cpu.assign(peak_bytes=peaks, measured_peak_bytes=peaks)
    found["throughput"] = on_cpu.assign(update_time_s=[0.5, 0.25])
    frame, _, priced = made(found)
    assert list(frame["optimizer_state_mib"]) == [2, 1]
    assert list(frame["peak_mib"]) == list(frame["measured_peak_mib"]) == [16, 8]
    assert list(frame["trainable_parameters"]) == [100, 104]
    assert list(frame["update_time_s"]) == [0.5, 0.25]
    assert list(priced.table["kept_bytes"]) == [2**21 + 6, 2**20 + 6]


def test_a_time_that_not_all_curves_have_gives_way_to_that_of_the_runs(tmp_path: Path) -> None:
    found = frames_of(tmp_path, PAIR)
    throughput = CELLS.assign(status="ok", device="cpu", batch_size=8, update_time_s=[0.5, 0.25])
    found["throughput"] = throughput[:1]
    assert list(made(found)[0]["step_time_s"]) == pytest.approx([0.1, 4.1])


def test_a_tainted_row_has_no_time_and_no_energy(tmp_path: Path) -> None:
    found = frames_of(tmp_path, PAIR)
    found["runs"] = found["runs"].assign(step_time_s=1.0, taint=None)
    measured = {"update_time_s": [0.5, 0.25], "energy_joules": [9.0, 8.0]}
    found["throughput"] = CELLS.assign(
        status="ok", device="cpu", batch_size=8, taint=["2 threads on 1 core", None], **measured
    )
    priced = costs(found).table
    assert list(priced["update_time_s"].isna()) == [True, False]
    assert list(priced["energy_joules"].dropna()) == [8.0]
    assert list(priced["step_time_s"]) == [1.0, 1.0]
    found["runs"].loc[found["runs"]["method"] == "lora", "taint"] = "shared"
    assert list(costs(found).table["step_time_s"].isna()) == [False, True]


def test_a_start_stands_beside_the_step(tmp_path: Path) -> None:
    """Means over the sound runs of a curve; a method that starts at once has none."""
    found = frames_of(tmp_path, PAIR)
    assert not {"start_time_s", "start_flops"} & {*made(found)[0]}
    found["runs"]["start_time_s"] = [np.nan, np.nan, 2.0, 4.0]
    found["runs"]["start_flops"] = [np.nan, np.nan, 1e9, 3e9]
    frame, lines, _ = made(found)
    assert frame["start_time_s"].isna().tolist() == [True, False]
    assert (frame["start_time_s"][1], frame["start_flops"][1]) == (3, 2e9)
    text = tables.markdown(frame, lines)
    assert "start (s)" in text and "start (FLOPs)" in text
    assert "start: what a method computed before the first step" in text


def test_profiles_with_several_batches_or_devices_are_not_compared(tmp_path: Path) -> None:
    found = frames_of(tmp_path, PAIR)
    found["flops"] = CELLS.assign(batch_size=[8, 32], step_flops=[1, 2])
    _, lines, priced = made(found)
    assert "step_flops" not in priced.table
    assert "Warning: flops of m/d was profiled with several batch_size: 8, 32." in lines
    found["flops"] = CELLS.assign(device=["cpu", "cuda"], step_flops=[1, 2])
    with pytest.raises(ValueError, match=r"flops\.csv: device of m/d is cpu and cuda"):
        costs(found)


def test_times_of_two_machines_are_left_out_and_scores_are_not(tmp_path: Path) -> None:
    found = frames_of(tmp_path, PAIR)
    found["runs"]["device_name"] = ["one", "one", "one", "other"]
    found["throughput"] = CELLS.assign(
        device="cpu", device_name=["one", "other"], update_time_s=[0.5, 0.25]
    )
    frame, lines, priced = made(found)
    assert list(frame["accuracy_percent"]) == [50, 50]
    assert list(frame["device_name"]) == ["one", "one and other"]
    assert not {"update_time_s", "step_time_s"} & {*frame, *priced.table}
    assert "trainable_parameters" in priced.table
    text = tables.markdown(frame, lines)
    for cost in ("update_time_s", "step_time_s"):
        assert f"{cost} of m/d is of several devices, one and other" in text
    assert "m/d compares unequal runs: device name: one, but other for lora r4" in text
