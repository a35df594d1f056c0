"""Figures of quality, training and verdicts: what they show and what they refuse."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pypdf
import pytest
import yaml
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from helpers.figure_texts import overlaps, texts
from helpers.repository import CLEAN, ROOT
from helpers.study_tables import EPOCHS, study_tables
from rankwise.analysis import tables
from rankwise.audit import staleness
from rankwise.report import (
    accuracy_memory,
    critical_difference,
    draw,
    gradient_norms,
    heatmap,
    loss,
    metric_by_rank,
    spectra,
    style,
    verdicts,
)
from rankwise.study import captions, jobs, outputs
from rankwise.study.plan import Plan

MODULES = {
    "metric_by_rank": metric_by_rank,
    "heatmap": heatmap,
    "critical_difference": critical_difference,
    "accuracy_memory": accuracy_memory,
    "loss": loss,
    "gradient_norms": gradient_norms,
    "spectra": spectra,
}
PAPER_COLUMN = 3.5  # inches


FAILED = {("galore", 64, 0): "out_of_memory", ("lora", 64, 1): "diverged"}


@pytest.fixture(scope="module")
def large() -> dict[str, pd.DataFrame]:
    return study_tables(failed=FAILED)


@pytest.fixture(scope="module")
def medium() -> dict[str, pd.DataFrame]:
    """All methods at two ranks with two seeds."""
    return study_tables(ranks=(2, 64), seeds=2, failed=FAILED)


@pytest.fixture(scope="module")
def small() -> dict[str, pd.DataFrame]:
    return study_tables(("full", "lora"), (2, 8), 2, ("sst2",))


@pytest.fixture(scope="module")
def one_seed() -> dict[str, pd.DataFrame]:
    return study_tables(("full", "lora"), (2, 8), 1, ("sst2",))


@pytest.fixture(scope="module")
def labels() -> dict[str, str]:
    methods = yaml.safe_load((ROOT / "config/methods.yaml").read_text())
    return {name: entry.get("label", name) for name, entry in methods.items()}


def intervals(axes: Axes) -> list[Line2D]:
    """The vertical bars of a panel."""
    return [line for line in axes.lines if len(set(line.get_xdata())) == 1 < len(line.get_xdata())]


# Layout and files ------------------------------------------------------------------------------

LARGE = [pytest.param(name, "large", marks=pytest.mark.slow) for name in MODULES]


@pytest.mark.parametrize(("name", "size"), [*((name, "small") for name in MODULES), *LARGE])
def test_texts_do_not_overlap_and_are_legible(
    name: str, size: str, labels: dict, request: pytest.FixtureRequest
) -> None:
    figure = MODULES[name].draw(request.getfixturevalue(size), labels)
    assert not overlaps(figure)
    sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip()]
    assert min(sizes) >= 7
    assert figure.get_figwidth() <= (PAPER_COLUMN if size == "small" else 2 * PAPER_COLUMN)


def test_metadata_name_every_run_in_every_format(small: dict, labels: dict, tmp_path: Path) -> None:
    runs = [f"{i:016x}" for i in range(120)]
    style.save(metric_by_rank.draw(small, labels), tmp_path / "x.png", runs)
    for end, read in staleness.READERS.items():
        assert read((tmp_path / f"x{end}").read_bytes()).split() == sorted(runs), end
    assert Image.open(tmp_path / "x.png").info["Runs"].split() == sorted(runs)
    written = pypdf.PdfReader(tmp_path / "x.pdf")
    assert written.metadata["/Keywords"].split() == sorted(runs)
    assert "LoRA" in written.pages[0].extract_text()  # letters, not outlines


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    """Neither the clock nor the order of Python's sets is in a file."""
    code = """
import sys
from pathlib import Path
from matplotlib.figure import Figure
from rankwise.report import style
figure = style.styled(Figure)(figsize=(2, 2))
style.styled(lambda: figure.subplots().set_title("ΔW r=8, ± 1 (IA)³"))()
style.save(figure, Path(sys.argv[1]) / "x.png", ["b", "a"])
"""
    for seed in "12":
        (tmp_path / seed).mkdir()
        environment = {
            **CLEAN,
            "PYTHONPATH": str(ROOT / "src"),
            "PYTHONHASHSEED": seed,
            "SOURCE_DATE_EPOCH": f"{seed}00000000",
        }
        subprocess.run([sys.executable, "-c", code, tmp_path / seed], env=environment, check=True)
    for end in outputs.DRAWN:
        first, second = ((tmp_path / seed / f"x.{end}").read_bytes() for seed in "12")
        assert first == second, end
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == ["x.pdf", "x.png", "x.svg"]


def test_every_figure_has_a_caption_in_one_form(tmp_path: Path) -> None:
    assert {*outputs.FIGURE_TABLES, "claims"} == set(captions.CAPTIONS)
    for name, caption in captions.CAPTIONS.items():
        assert caption.category in ("Quality", "Memory", "Compute", "Claims", "Training"), name
        assert caption.text.endswith("."), name
    (tmp_path / "x.rst").write_text("Title\n=====\n\nText.\n")
    with pytest.raises(ValueError, match=r"x\.rst"):
        captions.read(tmp_path / "x.rst")


def test_a_study_asks_for_the_figures_that_it_has_the_data_for(demo: dict) -> None:
    def plan() -> Plan:
        return Plan(demo, ROOT, "config/demo.yaml")

    names = set(outputs.figures(plan()))
    assert {*MODULES} <= names
    assert "evaluations" not in names
    assert {f"results/demo/figures/{name}.pdf" for name in names} <= set(jobs.targets(plan()))
    demo["train"][0] |= {"methods": ["full", "rsvd"], "override": {}}
    assert "spectra" not in outputs.figures(plan())
    demo["train"][0] |= {"methods": ["frozen"], "override": {}}
    untrained = set(outputs.figures(plan()))
    assert not {"gradient_norms", "spectra", "critical_difference"} & untrained


# Quality ---------------------------------------------------------------------------------------


def test_intervals_by_rank_are_those_of_the_estimates(small: dict, labels: dict) -> None:
    (axes,) = metric_by_rank.draw(small, labels).axes
    lora = small["estimates"][small["estimates"]["method"] == "lora"]
    bars = [tuple(line.get_ydata()) for line in intervals(axes)]
    assert np.allclose(bars, 100 * lora[["low", "high"]])
    full = small["estimates"].query("method == 'full'").iloc[0]
    (band,) = axes.patches
    ends = (band.get_y(), band.get_y() + band.get_height())
    assert ends == pytest.approx((100 * full["low"], 100 * full["high"]))


@pytest.mark.parametrize("name", MODULES)
def test_one_seed_has_no_interval_and_the_figure_says_so(
    name: str, one_seed: dict, labels: dict
) -> None:
    figure = MODULES[name].draw(one_seed, labels)
    if name != "accuracy_memory":  # it shows the seeds themselves
        assert "one seed: no interval" in texts(figure)
    if name == "metric_by_rank":
        assert not figure.axes[0].patches
        assert not intervals(figure.axes[0])


def test_curves_with_one_seed_among_others_are_named(labels: dict) -> None:
    failed = {("lora", 8, 1): "diverged"}
    data = study_tables(("full", "lora"), (2, 8), 2, ("sst2",), failed)
    shown = texts(metric_by_rank.draw(data, labels))
    assert "LoRA r=8, one seed: no interval" in shown
    assert "LoRA r=8: diverged, seed 1" in shown


def test_the_heat_map_has_every_value_the_best_and_the_failed(medium: dict, labels: dict) -> None:
    figure = heatmap.draw(medium, labels)
    axes = figure.axes[0]
    estimates = medium["estimates"][medium["estimates"]["dataset"] == "sst2"]
    shown = [text.get_text() for text in axes.texts]
    assert len(shown) == len(estimates)
    for row in estimates[estimates["estimate"].notna()].itertuples():
        assert any(text.split()[0] == style.number(100 * row.estimate) for text in shown)
    # A curve with a failed run is never the best.
    complete = estimates[(estimates["method"] != "lora") | (estimates["rank"] != 64)]
    (best,) = (text.get_text() for text in axes.texts if text.get_fontweight() == "bold")
    assert best == style.number(100 * complete["estimate"].max())
    assert len([patch for patch in axes.patches if patch.get_hatch()]) == 2
    assert "LoRA r=64: diverged, seed 1" in texts(figure)


def test_a_cell_of_which_all_runs_failed_has_their_status(labels: dict) -> None:
    failed = {("lora", 8, seed): "out_of_memory" for seed in range(2)}
    data = study_tables(("full", "lora"), (2, 8), 2, ("sst2",), failed)
    cells = [text.get_text() for text in heatmap.draw(data, labels).axes[0].texts]
    assert "out of\nmemory" in cells
    assert "LoRA r=8: out of memory, seed 0, 1" in texts(metric_by_rank.draw(data, labels))
    ranked = critical_difference.draw(data, labels).axes[0].get_yticklabels()
    assert "LoRA r=8" not in [tick.get_text() for tick in ranked]


@pytest.mark.parametrize(("last_verdict", "mark"), [("undecided", " ?"), ("a better", "")])
def test_marks_against_the_best_are_the_verdicts(
    small: dict, labels: dict, last_verdict: str, mark: str
) -> None:
    best, other, last = ("full", 0), ("lora", 8), ("lora", 2)
    verdict_by_pair = {
        frozenset([best, other]): "tied",
        frozenset([best, last]): last_verdict,
        frozenset([other, last]): "undecided",
    }
    comparisons = small["comparisons"]
    verdict = [
        verdict_by_pair[frozenset([(row.method_a, row.rank_a), (row.method_b, row.rank_b)])]
        for row in comparisons.itertuples()
    ]
    data = {
        **small,
        "estimates": small["estimates"].assign(estimate=[0.9, 0.7, 0.8]),
        "comparisons": comparisons.assign(verdict=verdict),
    }
    figure = heatmap.draw(data, labels)
    cells = [text.get_text() for text in figure.axes[0].texts]
    assert cells == ["90.0", f"70.0{mark}", "80.0 ="]
    assert ("not decided" in texts(figure)) == bool(mark)


def test_mean_ranks_are_over_datasets_and_seeds(labels: dict) -> None:
    data = study_tables(("full", "lora"), (2, 8), 2)
    runs = data["runs"]
    curves = (("full", 0), ("lora", 2), ("lora", 8))
    values_by_dataset = {
        ("sst2", "accuracy_fraction"): (0.9, 0.8, 0.7),
        ("wikitext", "perplexity"): (5.0, 4.0, 6.0),
    }
    for (dataset, column), values in values_by_dataset.items():
        for value, (method, rank) in zip(values, curves, strict=True):
            is_curve = (runs["method"] == method) & (runs["rank"] == rank)
            runs.loc[is_curve & (runs["dataset"] == dataset), column] = value
    (axes,) = critical_difference.draw(data, labels).axes
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    dots = [line for line in axes.lines if len(line.get_xdata()) == 1]
    places = {name: dot.get_xdata()[0] for name, dot in zip(names, dots, strict=True)}
    assert places == {"Full AdamW": 1.5, "LoRA r=2": 1.5, "LoRA r=8": 3.0}
    assert "over 4 blocks: 2 datasets with 2 seeds each" in axes.get_xlabel()


def front(runs: pd.DataFrame, memory: pd.DataFrame, labels: dict) -> np.ndarray:
    (axes,) = accuracy_memory.draw({"runs": runs, "memory": memory}, labels).axes
    (line,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    return line.get_xydata()


def test_the_front_joins_the_means_that_no_smaller_mean_beats(small: dict, labels: dict) -> None:
    # full, lora r=2, lora r=8, two seeds each: the last is dominated
    runs = small["runs"].assign(accuracy_fraction=[0.9, 0.9, 0.7, 0.7, 0.6, 0.6])
    sizes = {"gradients_bytes": 0, "optimizer_state_bytes": [8e8, 2e8, 4e8], "weights_bytes": 0}
    memory = small["memory"].assign(**sizes)
    mib = 2**20
    expected = [(2e8 / mib, 70), (8e8 / mib, 90), (8e8 / mib, 90)]
    assert np.allclose(front(runs, memory, labels), expected)
    # The mean of the seeds that ended well is never on the front.
    failed = runs.assign(status=["ok", "ok", "ok", "diverged", "ok", "ok"])
    assert front(failed, memory, labels)[0] == pytest.approx([4e8 / mib, 60])


# Verdicts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_groups_join_exactly_the_joined_pairs(seed: int) -> None:
    random, order = np.random.default_rng(seed), [("lora", rank) for rank in range(1, 13)]
    pairs = [frozenset(pair) for pair in itertools.combinations(order, 2)]
    joined = {pair for pair in pairs if random.random() < 0.05 * seed}
    groups = verdicts.cover(order, joined)
    in_groups = set()
    for group in groups:
        assert group == sorted(group)
        in_groups |= {frozenset(pair) for pair in itertools.combinations(group, 2)}
    assert in_groups == joined
    if len(joined) == len(pairs):
        assert groups == [order]


@pytest.mark.parametrize(("verdicts_by_dataset", "expected"), [
    (("tied", "tied"), "tied"),
    (("tied", "undecided"), "undecided"),
    (("tied", "b better"), "decided"),
    (("a better", "b better"), "decided"),
])  # fmt: skip
def test_over_datasets_a_pair_is_decided_by_one_and_tied_only_by_all(
    verdicts_by_dataset: tuple, expected: str
) -> None:
    pair = {"method_a": "full", "rank_a": 0, "method_b": "lora", "rank_b": 8}
    table = pd.DataFrame([{**pair, "verdict": verdict} for verdict in verdicts_by_dataset])
    key = frozenset([("full", 0), ("lora", 8)])
    assert verdicts.pair_verdicts(table) == {key: expected}


# Training --------------------------------------------------------------------------------------


def test_spectra_show_the_methods_that_report_them(medium: dict, labels: dict) -> None:
    figure = spectra.draw(medium, labels)
    quantities = {axes.get_ylabel() for axes in figure.axes}
    assert quantities == {"zeros in the factors (%)", "effective rank of B A"}
    assert "Sparse LoRA" in texts(figure)
    assert "GaLore" not in texts(figure)
    message = (
        r"spectra: no sparsity_fraction or .* in the history of the cells distilbert/sst2/full/r0"
    )
    with pytest.raises(ValueError, match=message):
        spectra.draw(study_tables(("full",), (), 2, ("sst2",)), labels)


def test_norms_are_the_means_over_seeds(small: dict, labels: dict) -> None:
    (axes,) = gradient_norms.draw(small, labels).axes
    assert axes.get_yscale() == "log"
    rows = small["history"].query("method == 'lora' and rank == 8 and update > 0")
    wanted = rows.groupby("update")["gradient_norm"].mean().to_numpy()
    curves = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == EPOCHS]
    assert any(np.allclose(curve, wanted) for curve in curves)


# What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [metric_by_rank, heatmap, critical_difference])
def test_a_figure_names_the_missing_estimates(module: object, small: dict, labels: dict) -> None:
    incomplete = {**small, "estimates": small["estimates"].query("rank != 8")}
    message = r"no estimate for the cells of train: distilbert/sst2/lora/r8$"
    with pytest.raises(ValueError, match=message):
        module.draw(incomplete, labels)
    empty = {name: frame.iloc[:0] for name, frame in small.items()}
    with pytest.raises(ValueError, match="there are none"):
        module.draw(empty, labels)


@pytest.mark.parametrize("module", [loss, gradient_norms, spectra])
def test_a_figure_names_the_missing_history(module: object, medium: dict, labels: dict) -> None:
    incomplete = {**medium, "history": medium["history"].query("dataset == 'sst2'")}
    message = "no history for the cells of train: distilbert/wikitext/full/r0, "
    with pytest.raises(ValueError, match=message):
        module.draw(incomplete, labels)


def draw_from_files(name: str, frames: dict, labels: dict, folder: Path) -> None:
    """Draw as the workflow does."""
    for part in ("tables", "figures"):
        (folder / part).mkdir(exist_ok=True)
    for table in outputs.FIGURE_TABLES[name]:
        tables.write(frames[table], folder / "tables" / table)
    request = {"figure": name, "tables": outputs.FIGURE_TABLES[name], "labels": [*labels.items()]}
    draw.draw(request, folder / "figures" / f"{name}.png")


@pytest.mark.parametrize("name", ["metric_by_rank", "loss"])
def test_mixed_devices_are_refused_by_name(
    name: str, small: dict, labels: dict, tmp_path: Path
) -> None:
    frames = {**small, "runs": small["runs"].assign(device=["cpu"] * 5 + ["cuda"])}
    with pytest.raises(ValueError, match=r"runs\.csv: device of distilbert/sst2 is cpu and cuda"):
        draw_from_files(name, frames, labels, tmp_path)
    assert not list((tmp_path / "figures").glob("*"))


def test_times_of_two_gpus_are_refused_by_name_and_scores_are_not(
    small: dict, labels: dict, tmp_path: Path
) -> None:
    gpus = {"device": "cuda", "device_name": ["gpu one"] * 5 + ["gpu two"]}
    timed = small["runs"][["model", "dataset", "method", "rank", "status"]]
    timed = timed.assign(**gpus, update_time_s=1.0)
    for name, table in (("throughput", "throughput"), ("latency", "forward")):
        message = rf"{table}\.csv: device_name of distilbert/sst2 is gpu one and gpu two"
        with pytest.raises(ValueError, match=message):
            draw_from_files(name, {table: timed}, labels, tmp_path)
    assert not list((tmp_path / "figures").glob("*"))
    draw_from_files("loss", {**small, "runs": small["runs"].assign(**gpus)}, labels, tmp_path)
    assert (tmp_path / "figures/loss.png").is_file()


def test_only_measured_peaks_must_be_of_one_device(labels: dict, tmp_path: Path) -> None:
    cell = {"model": "tiny", "method": "full", "rank": 0, "status": "ok", "request_digest": "a"}
    measured = {"measured_peak_bytes": 1e6, "residual_fraction": 0.0}
    predicted = {"measured_peak_bytes": None, "residual_fraction": None}
    on_cpu = {**cell, "dataset": "one", "device": "cpu", **measured}
    on_cuda = {**cell, "dataset": "two", "device": "cuda"}
    table = pd.DataFrame([on_cpu, {**on_cuda, **predicted}])
    draw_from_files("predicted", {"ledger": table}, labels, tmp_path)
    table = pd.DataFrame([on_cpu, {**on_cuda, **measured}])
    with pytest.raises(ValueError, match="device of all models/all datasets is cpu and cuda"):
        draw_from_files("predicted", {"ledger": table}, labels, tmp_path)
