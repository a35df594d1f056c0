"""Figures of quality, training and verdicts: what they show of small and of large studies, and what they refuse."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pypdf
import pytest
import yaml
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from helpers.repository import CLEAN, ROOT
from rankwise.analysis import evidence, tables
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
    module.__name__.rpartition(".")[2]: module
    for module in (
        metric_by_rank,
        heatmap,
        critical_difference,
        accuracy_memory,
        loss,
        gradient_norms,
        spectra,
    )
}
METHODS = ("full", "lora", "rsvd", "galore", "sparse_lora", "dora")
ALONE = ("full", "bitfit")
RANKS = (2, 4, 8, 16, 64)
EXAMPLES, EPOCHS = 60, 3


def study(
    methods: tuple = METHODS,
    ranks: tuple = RANKS,
    seeds: int = 3,
    datasets: tuple = ("sst2", "wikitext"),
    lost: tuple = (),
):
    """Tables of a study; `lost`: (method, rank, seed) -> status of runs that failed. wikitext has a perplexity."""
    random, found = (
        np.random.default_rng(0),
        {"runs": [], "history": [], "memory": [], "examples": []},
    )
    failed = dict(lost)
    for dataset, (place, method) in itertools.product(datasets, enumerate(methods)):
        for rank, seed in itertools.product((0,) if method in ALONE else ranks, range(seeds)):
            cell = {"model": "distilbert", "dataset": dataset, "method": method, "rank": rank}
            status = failed.get((method, rank, seed), "ok")
            run = {
                **cell,
                "seed": seed,
                "status": status,
                "reason": None,
                "request_digest": f"{len(found['runs']):016x}",
            }
            worth = 0.6 + 0.03 * place + 0.01 * RANKS.index(rank or 2)
            right = (random.random(EXAMPLES) < worth).astype(float)
            scores = {
                "loss_nats": 2.5 - right,
                **({"correct_fraction": right} if dataset == "sst2" else {}),
                "predictions": 1,
            }
            shown = (
                {"accuracy_fraction": right.mean()}
                if dataset == "sst2"
                else {"perplexity": np.exp(2.5 - right.mean())}
            )
            found["runs"].append(
                {**run, "split": "validation", **(shown if status == "ok" else {})}
            )
            if seed == 0:
                sizes = {
                    "weights_bytes": 1e8,
                    "quantization_bytes": 0,
                    "gradients_bytes": 1e6 * rank,
                }
                found["memory"].append(
                    {
                        **cell,
                        "status": "ok",
                        **sizes,
                        "optimizer_state_bytes": 1e6 * (rank + 9 * place),
                    }
                )
            if status != "ok":
                continue
            found["examples"].append(pd.DataFrame({**run, **scores, "example": range(EXAMPLES)}))
            for epoch in range(EPOCHS + 1):
                row = {
                    **cell,
                    "seed": seed,
                    "epoch": float(epoch),
                    "update": 9 * epoch,
                    "selection_loss_nats": 1 / (1 + epoch * worth),
                }
                row |= {"gradient_norm": np.exp(random.normal() - epoch)} if epoch else {}
                row |= (
                    {"product_effective_rank": epoch and 0.7 * rank}
                    if "lora" in method or method == "dora"
                    else {}
                )
                found["history"].append(
                    row | ({"sparsity_fraction": 0.1 * epoch} if method == "sparse_lora" else {})
                )
    frames = {name: pd.DataFrame(rows) for name, rows in found.items() if name != "examples"}
    examples = pd.concat(found["examples"])
    parts = [evidence.groups(rows, examples[examples["dataset"] == name].dropna(axis=1, how="all"))
             for name, rows in frames["runs"].groupby("dataset", sort=False)]  # fmt: skip
    groups = [group for part in parts for group in part]
    margins = {"accuracy_fraction": 0.01, "perplexity_ratio": 1.01}
    return {
        **frames,
        "estimates": evidence.estimates(groups),
        "comparisons": evidence.comparisons(groups, margins),
    }


@pytest.fixture(scope="module")
def large() -> dict[str, pd.DataFrame]:
    return study(lost=((("galore", 64, 0), "out_of_memory"), (("lora", 64, 1), "diverged")))


@pytest.fixture(scope="module")
def small() -> dict[str, pd.DataFrame]:
    return study(("full", "lora"), (2, 8), 2, ("sst2",))


@pytest.fixture(scope="module")
def labels() -> dict[str, str]:
    methods = yaml.safe_load((ROOT / "config/methods.yaml").read_text())
    return {name: entry.get("label", name) for name, entry in methods.items()}


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts, anywhere in the figure, that lie on each other by more than a point; and texts beyond its edges."""
    figure.draw_without_rendering()
    axles = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    away = [
        tick
        for axis in axles
        for tick in axis.get_major_ticks()
        if not _within(tick.get_loc(), axis.get_view_interval())
    ]
    hidden = {label for tick in away for label in (tick.label1, tick.label2)}
    shown = [
        text
        for text in figure.findobj(Text)
        if text.get_text().strip() and text.get_visible() and text not in hidden
    ]
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in shown]
    inch = figure.dpi
    lines = [(name, box.padded(-inch / 72)) for name, box in boxes]
    found = [
        (a, b)
        for (a, one), (b, other) in itertools.combinations(lines, 2)
        if a != b and one.overlaps(other)
    ]
    edges = figure.bbox.padded(inch / 36)
    return found + [
        (name, "edge")
        for name, box in boxes
        if box.x0 < edges.x0 or box.x1 > edges.x1 or box.y0 < edges.y0
    ]


def _within(place: float, view: tuple[float, float]) -> bool:
    return min(view) <= place <= max(view)


LARGE = [
    pytest.param(name, "large", marks=[pytest.mark.slow] * (name in ("loss", "spectra")))
    for name in MODULES
]


@pytest.mark.parametrize(("name", "size"), [*((name, "small") for name in MODULES), *LARGE])
def test_no_text_lies_on_another_and_all_is_legible(
    name: str, size: str, labels: dict, request: pytest.FixtureRequest
) -> None:
    figure = MODULES[name].draw(request.getfixturevalue(size), labels)
    assert not overlaps(figure)
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip()) >= 7
    assert figure.get_figwidth() <= 7.0
    if size == "small":
        assert figure.get_figwidth() <= 3.5  # a paper's column


def test_metadata_name_every_run_in_every_format(
    small: dict, large: dict, labels: dict, tmp_path: Path
) -> None:
    runs = large["runs"]["request_digest"].tolist()
    assert len(runs) > 100
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
        one, other = ((tmp_path / seed / f"x.{end}").read_bytes() for seed in "12")
        assert one == other
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == ["x.pdf", "x.png", "x.svg"]


# Quality --------------------------------------------------------------------------------------------------------------


def test_intervals_by_rank_are_those_of_the_estimates(small: dict, labels: dict) -> None:
    (axes,) = metric_by_rank.draw(small, labels).axes
    rows = small["estimates"][small["estimates"]["method"] == "lora"]
    bars = [
        tuple(line.get_ydata())
        for line in axes.lines
        if len(set(line.get_xdata())) == 1 < len(line.get_xdata())
    ]
    assert np.allclose(bars, 100 * rows[["low", "high"]])
    full = small["estimates"].query("method == 'full'").iloc[0]
    (band,) = axes.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx(
        (100 * full["low"], 100 * full["high"])
    )


@pytest.mark.parametrize("name", MODULES)
def test_one_seed_has_no_interval_and_the_figure_says_so(name: str, labels: dict) -> None:
    data = study(("full", "lora"), (2, 8), 1, ("sst2",))
    figure = MODULES[name].draw(data, labels)
    if name != "accuracy_memory":  # it shows the seeds themselves
        assert "one seed: no interval" in texts(figure)
    if name == "metric_by_rank":
        assert not figure.axes[0].patches
        assert not [
            line
            for line in figure.axes[0].lines
            if len(set(line.get_xdata())) == 1 < len(line.get_xdata())
        ]


def test_curves_with_one_seed_among_others_are_named(labels: dict) -> None:
    data = study(("full", "lora"), (2, 8), 2, ("sst2",), lost=((("lora", 8, 1), "diverged"),))
    shown = texts(metric_by_rank.draw(data, labels))
    assert "LoRA r=8, one seed: no interval" in shown
    assert "LoRA r=8: diverged, seed 1" in shown


def test_the_heat_map_has_every_value_the_best_and_the_failed(large: dict, labels: dict) -> None:
    figure = heatmap.draw(large, labels)
    accuracy = large["estimates"][large["estimates"]["dataset"] == "sst2"]
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert len(shown) == len(accuracy)
    for row in accuracy[accuracy["estimate"].notna()].itertuples():
        assert any(text.split()[0] == style.number(100 * row.estimate) for text in shown)
    whole = accuracy[~((accuracy["method"] == "lora") & (accuracy["rank"] == 64))]
    (best,) = (text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold")
    assert best == style.number(100 * whole["estimate"].max())
    hatched = [patch for patch in figure.axes[0].patches if patch.get_hatch()]
    assert len(hatched) == 2
    assert "LoRA r=64: diverged, seed 1" in texts(figure)


def test_a_cell_of_which_all_runs_failed_has_their_word(labels: dict) -> None:
    lost = tuple((("lora", 8, seed), "out_of_memory") for seed in range(2))
    data = study(("full", "lora"), (2, 8), 2, ("sst2",), lost=lost)
    assert "out of\nmemory" in [
        text.get_text() for text in heatmap.draw(data, labels).axes[0].texts
    ]
    assert "LoRA r=8: out of memory, seed 0, 1" in texts(metric_by_rank.draw(data, labels))
    assert "LoRA r=8" not in [
        tick.get_text() for tick in critical_difference.draw(data, labels).axes[0].get_yticklabels()
    ]


def test_marks_against_the_best_are_the_verdicts(small: dict, labels: dict) -> None:
    best, other, last = ("full", 0), ("lora", 8), ("lora", 2)
    estimates = small["estimates"].assign(estimate=[0.9, 0.7, 0.8])
    words = {
        frozenset([best, other]): "tied",
        frozenset([best, last]): "undecided",
        frozenset([other, last]): "undecided",
    }
    for change, mark in ((words, " ?"), ({**words, frozenset([best, last]): "a better"}, "")):
        pairs = small["comparisons"]
        keys = [
            frozenset([(row.method_a, row.rank_a), (row.method_b, row.rank_b)])
            for row in pairs.itertuples()
        ]
        data = {
            **small,
            "estimates": estimates,
            "comparisons": pairs.assign(verdict=[change[key] for key in keys]),
        }
        figure = heatmap.draw(data, labels)
        assert [text.get_text() for text in figure.axes[0].texts] == [
            "90.0",
            f"70.0{mark}",
            "80.0 =",
        ]
        assert ("not decided" in texts(figure)) == bool(mark)


@pytest.mark.parametrize("seed", range(20))
def test_bars_join_just_the_pairs_that_are_joined(seed: int) -> None:
    random, order = np.random.default_rng(seed), [("lora", rank) for rank in range(1, 13)]
    pairs = list(map(frozenset, itertools.combinations(order, 2)))
    joined = {pair for pair in pairs if random.random() < 0.05 * seed}
    groups = verdicts.cover(order, joined)
    assert {
        frozenset(pair) for group in groups for pair in itertools.combinations(group, 2)
    } == joined
    assert all(group == sorted(group) for group in groups)
    if len(joined) == len(pairs):
        assert groups == [order]


def test_over_datasets_a_pair_is_decided_by_one_and_tied_only_by_all() -> None:
    def table(*words: str) -> pd.DataFrame:
        return pd.DataFrame(
            [
                {"method_a": "full", "rank_a": 0, "method_b": "lora", "rank_b": 8, "verdict": word}
                for word in words
            ]
        )

    key = frozenset([("full", 0), ("lora", 8)])
    for words, expected in {
        ("tied", "tied"): "tied", ("tied", "undecided"): "undecided", ("tied", "b better"): "decided", ("a better", "b better"): "decided",
    }.items():  # fmt: skip
        assert verdicts.pairs(table(*words)) == {key: expected}


def test_mean_ranks_are_over_datasets_and_seeds(labels: dict) -> None:
    data = study(("full", "lora"), (2, 8), 2)
    for dataset, column, values in (
        ("sst2", "accuracy_fraction", (0.9, 0.8, 0.7)),
        ("wikitext", "perplexity", (5.0, 4.0, 6.0)),
    ):
        for value, (method, rank) in zip(
            values, (("full", 0), ("lora", 2), ("lora", 8)), strict=True
        ):
            runs = data["runs"]
            mine = (
                (runs["dataset"] == dataset) & (runs["method"] == method) & (runs["rank"] == rank)
            )
            data["runs"].loc[mine, column] = value
    (axes,) = critical_difference.draw(data, labels).axes
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    places = {
        name: line.get_xdata()[0]
        for name, line in zip(
            names, [one for one in axes.lines if len(one.get_xdata()) == 1], strict=True
        )
    }
    assert places == {"Full AdamW": 1.5, "LoRA r=2": 1.5, "LoRA r=8": 3.0}
    assert "over 4 blocks: 2 datasets with 2 seeds each" in axes.get_xlabel()


def test_the_front_joins_what_nothing_smaller_beats(small: dict, labels: dict) -> None:
    runs = small["runs"].assign(
        accuracy_fraction=[0.9, 0.9, 0.7, 0.7, 0.6, 0.6]
    )  # full, lora 2, lora 8: the last is dominated
    memory = small["memory"].assign(
        gradients_bytes=0, optimizer_state_bytes=[8e8, 2e8, 4e8], weights_bytes=0
    )
    (axes,) = accuracy_memory.draw({"runs": runs, "memory": memory}, labels).axes
    (front,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    one, _ = style.unit(8e8)
    assert np.allclose(front.get_xydata(), [(2e8 / one, 70), (8e8 / one, 90), (8e8 / one, 90)])
    bad = runs.assign(status=["ok"] * 2 + ["ok", "diverged", "ok", "ok"])
    (axes,) = accuracy_memory.draw({"runs": bad, "memory": memory}, labels).axes
    (front,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert front.get_xydata()[0] == pytest.approx(
        [4e8 / one, 60]
    )  # a mean of survivors is never on the front


# Training -------------------------------------------------------------------------------------------------------------


def test_spectra_show_those_who_have_them_and_no_others(large: dict, labels: dict) -> None:
    figure = spectra.draw(large, labels)
    titles = "\n".join(axes.get_title(loc="left") for axes in figure.axes)
    assert {"zeros in the factors (%)", "effective rank of B A"} == {
        axes.get_ylabel() for axes in figure.axes
    }
    assert "Sparse LoRA" in titles
    assert "GaLore" not in texts(figure)
    with pytest.raises(
        ValueError,
        match=r"spectra: no sparsity_fraction or .* in the history of the cells distilbert/sst2/full/r0",
    ):
        spectra.draw(study(("full",), (), 2, ("sst2",)), labels)


def test_norms_are_the_means_over_seeds(small: dict, labels: dict) -> None:
    (axes,) = gradient_norms.draw(small, labels).axes
    assert axes.get_yscale() == "log"
    rows = small["history"].query("method == 'lora' and rank == 8 and update > 0")
    wanted = rows.groupby("update")["gradient_norm"].mean().to_numpy()
    assert any(
        len(line.get_ydata()) == EPOCHS and np.allclose(line.get_ydata(), wanted)
        for line in axes.lines
    )


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [metric_by_rank, heatmap, critical_difference])
def test_a_figure_without_its_estimates_says_which(
    module: object, small: dict, labels: dict
) -> None:
    few = {**small, "estimates": small["estimates"].query("rank != 8")}
    with pytest.raises(
        ValueError, match=r"no estimate for the cells of train: distilbert/sst2/lora/r8$"
    ):
        module.draw(few, labels)
    none = {name: frame.iloc[:0] for name, frame in small.items()}
    with pytest.raises(ValueError, match="there are none"):
        module.draw(none, labels)


@pytest.mark.parametrize("module", [loss, gradient_norms, spectra])
def test_a_figure_without_its_history_says_which(module: object, large: dict, labels: dict) -> None:
    few = {**large, "history": large["history"].query("dataset == 'sst2'")}
    with pytest.raises(
        ValueError, match="no history for the cells of train: distilbert/wikitext/full/r0, "
    ):
        module.draw(few, labels)


@pytest.mark.parametrize("name", ["metric_by_rank", "loss"])
def test_mixed_devices_are_refused_by_name(
    name: str, small: dict, labels: dict, tmp_path: Path
) -> None:
    frames = {**small, "runs": small["runs"].assign(device=["cpu"] * 5 + ["cuda"])}
    with pytest.raises(ValueError, match=r"runs\.csv: device of distilbert/sst2 is cpu and cuda"):
        drawn(name, frames, labels, tmp_path)
    assert not list((tmp_path / "figures").glob("*"))


def test_times_of_two_cards_are_refused_by_name_and_scores_are_not(
    small: dict, labels: dict, tmp_path: Path
) -> None:
    cards = {"device": "cuda", "device_name": ["card one"] * 5 + ["card two"]}
    timed = small["runs"][["model", "dataset", "method", "rank", "status"]].assign(
        **cards, update_time_s=1.0
    )
    for name, table in (("throughput", "throughput"), ("latency", "forward")):
        with pytest.raises(
            ValueError,
            match=rf"{table}\.csv: device_name of distilbert/sst2 is card one and card two",
        ):
            drawn(name, {table: timed}, labels, tmp_path)
    assert not list((tmp_path / "figures").glob("*"))
    for name in ("metric_by_rank", "loss"):
        drawn(name, {**small, "runs": small["runs"].assign(**cards)}, labels, tmp_path)
        assert (tmp_path / f"figures/{name}.png").is_file()


def test_peaks_predicted_for_another_device_mix_with_none(labels: dict, tmp_path: Path) -> None:
    cell = {"model": "tiny", "method": "full", "rank": 0, "status": "ok", "request_digest": "a"}
    rows = [
        {
            **cell,
            "dataset": "one",
            "device": "cpu",
            "measured_peak_bytes": 1e6,
            "residual_fraction": 0.0,
        },
        {
            **cell,
            "dataset": "two",
            "device": "cuda",
            "measured_peak_bytes": None,
            "residual_fraction": None,
        },
    ]
    drawn("predicted", {"ledger": pd.DataFrame(rows)}, labels, tmp_path)
    rows[1] |= {"measured_peak_bytes": 1e6, "residual_fraction": 0.0}
    with pytest.raises(ValueError, match="device of all models/all datasets is cpu and cuda"):
        drawn("predicted", {"ledger": pd.DataFrame(rows)}, labels, tmp_path)


def drawn(name: str, frames: dict, labels: dict, folder: Path) -> None:
    """As the workflow does it, from files."""
    for table in outputs.FIGURE_TABLES[name]:
        (folder / "tables").mkdir(exist_ok=True)
        tables.write(frames[table], folder / "tables" / table)
    (folder / "figures").mkdir(exist_ok=True)
    request = {
        "figure": name,
        "tables": outputs.FIGURE_TABLES[name],
        "labels": list(labels.items()),
    }
    draw.draw(request, folder / "figures" / f"{name}.png")


def test_every_figure_has_a_caption_in_one_form(tmp_path: Path) -> None:
    assert {*outputs.FIGURE_TABLES, "claims"} == set(captions.CAPTIONS)
    for name, caption in captions.CAPTIONS.items():
        assert caption.category in ("Quality", "Memory", "Compute", "Claims", "Training"), name
        assert caption.text.endswith("."), name
    (tmp_path / "x.rst").write_text("Title\n=====\n\nText.\n")
    with pytest.raises(ValueError, match=r"x\.rst: allowed is"):
        captions.read(tmp_path / "x.rst")


def test_a_study_asks_for_the_figures_that_it_has_the_data_for(demo: dict) -> None:
    every = set(outputs.figures(Plan(demo, ROOT, "config/demo.yaml")))
    assert {*MODULES} <= every
    assert {f"results/figures/{name}.pdf" for name in every} <= set(
        jobs.targets(Plan(demo, ROOT, "config/demo.yaml"))
    )
    demo["train"][0]["methods"] = ["full", "rsvd"]
    assert "spectra" not in outputs.figures(Plan(demo, ROOT, "config/demo.yaml"))
    demo["train"][0] |= {"methods": ["frozen"], "override": {}}
    assert not {"gradient_norms", "spectra", "critical_difference"} & set(
        outputs.figures(Plan(demo, ROOT, "config/demo.yaml"))
    )
