"""The paper's table: what is best, tied, undecided, failed or unequal is shown as such, in Markdown and in LaTeX."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.test_evidence import MARGINS, gathered, study
from rankwise.analysis import tables
from rankwise.analysis.costs import Costs, costs
from rankwise.analysis.evidence import comparisons, estimates
from rankwise.analysis.scores import groups, mixed
from rankwise.analysis.summary import notes, summary

LABELS = {"full": "Full", "lora": "LoRA", "rsvd": "rSVD", "head_only": "Head only"}
CELL = {"model": "m", "dataset": "d"}


def frames(folder: Path, curves: dict, margins: dict = MARGINS) -> dict[str, pd.DataFrame]:
    runs, examples = gathered(study(folder, curves))
    found = groups(runs, examples)
    return {"runs": runs, "estimates": estimates(found), "comparisons": comparisons(found, margins)}


def made(
    found: dict[str, pd.DataFrame], margins: dict = MARGINS
) -> tuple[pd.DataFrame, list[str], Costs]:
    priced = costs(found)
    frame = summary(found, priced, LABELS)
    return frame, notes(frame, priced, margins), priced


def planted(folder: Path) -> dict[str, pd.DataFrame]:
    """Full and LoRA equal, rSVD worse, a head whose seeds differ much: best, tied, worse, undecided."""
    chance = np.random.default_rng(0)
    hard = chance.random(4000)

    def at(level: float, *luck: float) -> list:
        return [
            ((hard < level + one) ^ (chance.random(4000) < 0.001)).astype(float) for one in luck
        ]

    even = (0.0, 0.001, -0.001, 0.0)
    curves = {("full", 0): at(0.9, *even), ("lora", 4): at(0.8985, *even), ("rsvd", 4): at(0.8, *even),
              ("head_only", 0): at(0.8, 0.15, -0.3, 0.1, -0.1)}  # fmt: skip
    return frames(folder, curves, {**MARGINS, "accuracy_fraction": 0.02})


def test_best_is_bold_and_what_is_tied_or_undecided_is_marked(tmp_path: Path) -> None:
    frame, lines, _ = made(planted(tmp_path), {**MARGINS, "accuracy_fraction": 0.02})
    assert dict(zip(frame["method"], frame["best"], strict=True)) == {
        "Full": "best",
        "LoRA": "tied",
        "rSVD": "",
        "Head only": "undecided",
    }
    text, tex = tables.markdown(frame, lines), tables.latex(frame, lines)
    rows = {line.split(" | ")[2]: line for line in text.splitlines()[2:6]}
    full = frame.loc[0]
    shown = f"{full.accuracy_percent:.2f} [{full.accuracy_low_percent:.2f}, {full.accuracy_high_percent:.2f}]"
    assert f"**{shown}**" in rows["Full"]
    assert rf"\textbf{{{shown}}}" in tex
    assert [mark in rows["LoRA"] + rows["Head only"] for mark in "†‡"] == [True, True]
    assert not {*"†‡*"} & {*rows["rSVD"]}
    assert r"]$^{\dagger}$ &" in tex
    assert r"]$^{\ddagger}$ &" in tex
    assert "inside the margin, 2 points" in text
    assert "m/d: 32 samples an update, 10 updates, 80 samples, 802 tokens." in text


def test_a_column_of_intervals_is_one_column_of_the_page(tmp_path: Path) -> None:
    frame, *_ = made(planted(tmp_path))
    shown = tables.formatted(frame, str, str)
    assert len(tables.numeric(frame)) == len(shown.columns)
    assert "accuracy (%)" in shown
    assert not [name for name in shown if "low" in name or name in ("best", "warning", "updates")]


def test_a_curve_with_a_failed_run_is_never_the_best_and_says_what_befell_it(
    tmp_path: Path,
) -> None:
    good, bad = [[1, 1, 1, 1, 0]] * 2, [[1, 0, 1, 0, 0]] * 2
    frame, lines, _ = made(
        frames(
            tmp_path,
            {("full", 0): bad, ("lora", 4): [good[0], "diverged"], ("rsvd", 4): "out_of_memory"},
        )
    )
    assert list(frame["best"]) == ["best", "", ""]
    assert list(frame["status"]) == [
        "ok",
        "diverged (1 of 2): as planted",
        "out of memory (2 of 2): as planted",
    ]
    text = tables.markdown(frame, lines)
    assert "| rSVD | 4 | 0 |  |" in text
    assert "Not ranked: curves of which a run failed." in text
    assert "Unmarked: worse" not in text


def test_one_seed_says_so_and_shows_no_interval(tmp_path: Path) -> None:
    frame, lines, _ = made(
        frames(tmp_path, {("full", 0): [[1, 1, 1, 0]], ("lora", 4): [[1, 0, 0, 0]]})
    )
    text = tables.markdown(frame, lines)
    assert "**75.00**" in text
    assert "25.00‡" in text
    assert "one seed, no interval" in text
    assert "[" not in text


@pytest.mark.parametrize(("column", "value", "expected"), [
    ("effective_batch_size", 16, "effective batch size: 32, but 16 for lora r4"),
    ("updates", 5, "updates: 10, but 5 for lora r4"),
    ("tokens", 7, "tokens: 800, but 7 for lora r4"),
])  # fmt: skip
def test_unequal_runs_get_a_warning_in_every_form(
    column: str, value: int, expected: str, tmp_path: Path
) -> None:
    found = frames(
        tmp_path, {("full", 0): [[1, 0]] * 2, ("rsvd", 4): [[1, 0]] * 2, ("lora", 4): [[1, 0]] * 2}
    )
    assert mixed(found["runs"]) == {}  # tokens differ by seed alone
    found["runs"].loc[found["runs"]["method"] == "lora", column] = value
    frame, lines, _ = made(found)
    assert set(frame["warning"]) == {f"m/d compares unequal runs: {expected}"}
    for text in (tables.markdown(frame, lines), tables.latex(frame, lines)):
        assert f"Warning: m/d compares unequal runs: {expected}." in text
    tables.write(frame, tmp_path / "summary", lines)
    assert tables.notes_of(tmp_path / "summary.csv") == lines


def test_what_trains_nothing_is_no_unequal_run(tmp_path: Path) -> None:
    found = frames(tmp_path, {("full", 0): [[1, 0]] * 2, ("head_only", 0): [[1, 0]] * 2})
    found["runs"].loc[found["runs"]["method"] == "head_only", ["updates", "samples", "tokens"]] = 0
    assert mixed(found["runs"]) == {}


def test_costs_stand_beside_in_their_units(tmp_path: Path) -> None:
    found = frames(tmp_path, {("full", 0): [[1, 0]] * 2, ("lora", 4): [[1, 0]] * 2})
    cells = pd.DataFrame(
        [
            {**CELL, "method": "full", "rank": 0, "status": "ok"},
            {**CELL, "method": "lora", "rank": 4, "status": "ok"},
        ]
    )
    found["memory"] = cells.assign(
        weights_bytes=4, gradients_bytes=2, optimizer_state_bytes=[2**21, 2**20]
    )
    found["ledger"] = cells.assign(
        device="cpu", batch_size=8, peak_bytes=[2**24, 2**23], measured_peak_bytes=[2**24, 2**23]
    )
    found["throughput"] = cells.assign(device="cpu", batch_size=8, update_time_s=[0.5, 0.25])
    frame, _, priced = made(found)
    assert list(frame["optimizer_state_mib"]) == [2, 1]
    assert list(frame["peak_mib"]) == list(frame["measured_peak_mib"]) == [16, 8]
    assert list(frame["trainable_parameters"]) == [100, 104]
    assert list(frame["update_time_s"]) == [0.5, 0.25]
    assert list(priced.table["kept_bytes"]) == [2**21 + 6, 2**20 + 6]
    found["throughput"] = found["throughput"][
        :1
    ]  # a time that not all have is none: that of the runs stands there
    assert list(made(found)[0]["step_time_s"]) == pytest.approx([0.1, 4.1])


def test_profiles_with_several_batches_or_devices_are_not_compared(tmp_path: Path) -> None:
    found = frames(tmp_path, {("full", 0): [[1, 0]] * 2, ("lora", 4): [[1, 0]] * 2})
    cells = pd.DataFrame(
        [{**CELL, "method": "full", "rank": 0}, {**CELL, "method": "lora", "rank": 4}]
    )
    found["flops"] = cells.assign(batch_size=[8, 32], step_flops=[1, 2])
    _, lines, priced = made(found)
    assert "step_flops" not in priced.table
    assert "Warning: flops of m/d was profiled with several batch_size: 8, 32." in lines
    found["flops"] = cells.assign(device=["cpu", "cuda"], step_flops=[1, 2])
    with pytest.raises(ValueError, match=r"flops\.csv: device of m/d is cpu and cuda"):
        costs(found)


def test_times_of_two_machines_are_left_out_and_scores_are_not(tmp_path: Path) -> None:
    found = frames(tmp_path, {("full", 0): [[1, 0]] * 2, ("lora", 4): [[1, 0]] * 2})
    found["runs"]["device_name"] = ["one", "one", "one", "other"]
    cells = pd.DataFrame(
        [{**CELL, "method": "full", "rank": 0}, {**CELL, "method": "lora", "rank": 4}]
    )
    found["throughput"] = cells.assign(
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
