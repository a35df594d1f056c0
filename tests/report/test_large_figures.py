"""Figures of studies with many methods, ranks and variants: readable, and nothing left out unsaid."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.text import Text

from helpers.figure_texts import overlaps, texts
from helpers.study_tables import study_tables
from rankwise.report import (
    accuracy_memory,
    bars,
    critical_difference,
    flops,
    heatmap,
    latency,
    ledger,
    loss,
    memory,
    metric_by_rank,
    sensitivity,
    style,
)
from rankwise.study import captions, outputs

METHODS = (
    "full", "bitfit", "lora", "lora@fast", "lora@slow", "dora", "rslora", "rsvd", "galore", "fira",
    "apollo", "flora", "ldadam", "weight_reduction_residual",
)  # fmt: skip
RANKS = (2, 4, 8, 16, 64)
QUALITY = {
    "metric_by_rank": metric_by_rank,
    "heatmap": heatmap,
    "critical_difference": critical_difference,
    "accuracy_memory": accuracy_memory,
    "loss": loss,
}


@pytest.fixture
def labels(plan) -> dict[str, str]:
    """Labels of all methods, with two variants of LoRA right after it."""
    found = {}
    for name, label in outputs.labels(plan):
        found[name] = label
        if name == "lora":
            found |= {"lora@fast": "LoRA (lr 0.001)", "lora@slow": "LoRA (lr 1e-05)"}
    return found


@pytest.fixture(scope="module")
def many() -> dict[str, pd.DataFrame]:
    """Fourteen methods at five ranks: 62 curves."""
    return study_tables(METHODS, RANKS, 2, ("sst2",))


def profiles(columns: dict[str, float]) -> pd.DataFrame:
    """A row for each of 20 methods at each rank, with made-up values of these sizes."""
    chance = np.random.default_rng(0)
    methods = (*METHODS, "hira", "shira", "miss", "oft", "vlorp", "adapter_houlsby")
    rows = []
    for method, rank in itertools.product(methods, RANKS):
        cell = {"model": "m", "dataset": "d", "method": method, "rank": rank, "status": "ok"}
        rows.append({**cell, **{name: size * chance.random() for name, size in columns.items()}})
    return pd.DataFrame(rows)


BYTES = {"weights_bytes": 1e9, "optimizer_state_bytes": 1e9, "peak_bytes": 2e9}
OPERATIONS = {"forward_flops": 1e12, "backward_flops": 2e12, "optimizer_flops": 1e9}
BARS = {
    "memory": (memory, "memory", BYTES),
    "ledger": (ledger, "ledger", BYTES),
    "flops": (flops, "flops", {
        **OPERATIONS, "optimizer_amortised_flops": 2e9, "accumulation_steps": 1
    }),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", QUALITY)
def test_texts_of_a_large_study_do_not_overlap(name: str, many: dict, labels: dict) -> None:
    figure = QUALITY[name].draw(many, labels)
    assert not overlaps(figure)
    assert min(text.get_fontsize() for text in visible(figure)) >= 7
    assert figure.get_figheight() <= 2 * style.MAX_HEIGHT


def visible(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text().strip()]


@pytest.mark.parametrize("name", BARS)
def test_of_many_ranks_the_lowest_and_the_highest_are_shown_and_the_figure_says_so(
    name: str, labels: dict
) -> None:
    module, table, columns = BARS[name]
    figure = module.draw({table: profiles(columns)}, labels)
    (axes,) = figure.axes
    rows = [tick.get_text() for tick in axes.get_yticklabels()]
    assert len(rows) == 20 * 2
    assert "LoRA r=2" in rows
    assert rows[rows.index("LoRA r=2") + 1] == "r=64"
    assert "its lowest and its highest rank" in texts(figure)
    assert not overlaps(figure)


def test_a_figure_of_few_bars_says_nothing_of_ranks(labels: dict) -> None:
    few = profiles(BYTES).head(bars.MAX_ROWS)
    figure = memory.draw({"memory": few}, labels)
    assert len(figure.axes[0].get_yticklabels()) == len(few)
    assert "lowest" not in texts(figure)


def test_many_panels_of_curves_become_one_of_each_methods_highest_rank(
    many: dict, labels: dict
) -> None:
    history = pd.concat([many["history"].assign(dataset=name) for name in ("a", "b")])
    runs = pd.concat([many["runs"].assign(dataset=name) for name in ("a", "b")])
    figure = loss.draw({"history": history, "runs": runs}, labels)
    assert len(figure.axes) == 2
    shown = texts(figure)
    assert style.HIGHEST_RANK in shown
    assert "LoRA (lr 0.001) r=64" in shown
    assert "r=8" not in shown
    assert len({ax.lines[0].get_linestyle() for ax in figure.axes}) == 1


def test_many_panels_of_a_search_become_one(labels: dict) -> None:
    rates = (1e-4, 1e-3, 1e-2)
    trials = [
        {**row, "trial": f"t{rate}", "seed": 0, "learning_rate": rate, "selected": rate == 1e-3}
        for row in profiles({"selection_loss_nats": 1.0}).to_dict("records")
        for rate in rates
    ]
    figure = sensitivity.draw({"search": pd.DataFrame(trials)}, labels)
    assert len(figure.axes) == 1
    assert style.HIGHEST_RANK in texts(figure)
    assert not overlaps(figure)


def test_many_panels_of_latencies_become_fewer(labels: dict) -> None:
    rows = profiles({"forward_latency_s": 0.01})
    quartiles = {f"forward_latency_{name}_s": rows["forward_latency_s"] for name in ("q1", "q3")}
    rows = rows.assign(**quartiles)
    sizes = [rows.assign(batch_size=size, sequence_length_tokens=8) for size in (1, 8)]
    figure = latency.draw({"forward": pd.concat(sizes)}, labels)
    assert style.HIGHEST_RANK in texts(figure)
    assert len(figure.axes) <= style.MAX_PANELS


def test_a_ranking_of_many_curves_shows_the_best_and_says_how_many_there_are(
    many: dict, labels: dict
) -> None:
    (axes,) = critical_difference.draw(many, labels).axes
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    estimates = many["estimates"].sort_values("estimate", ascending=False, kind="stable")
    count = len(estimates)
    assert count > len(names) == critical_difference.MAX_ROWS
    best = estimates.head(len(names))
    expected = {
        style.curve_name(row.method, row.rank, labels)
        for row in best.itertuples()
        if row.estimate > best["estimate"].min()
    }
    assert expected <= set(names)
    assert f"the best {len(names)} of {count} curves" in axes.get_xlabel()


def test_with_many_methods_only_the_front_is_named_and_a_legend_names_the_rest(
    many: dict, labels: dict
) -> None:
    figure = accuracy_memory.draw(many, labels)
    (legend,) = figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert named == [labels[method] for method in labels if method in METHODS]
    assert "A line joins r=2, 4, 8, 16, 64." in legend.get_title().get_text()
    handles = dict(zip(named, legend.legend_handles, strict=True))
    lora, fast = handles["LoRA"], handles["LoRA (lr 0.001)"]
    assert lora.get_color() == fast.get_color()
    paths = [MarkerStyle(handle.get_marker()).get_path().vertices for handle in (lora, fast)]
    assert paths[0].shape != paths[1].shape


def test_variants_are_in_the_panel_of_their_method_and_their_marks_are_drawn(
    many: dict, labels: dict
) -> None:
    figure = metric_by_rank.draw(many, labels)
    variants = ("LoRA", "LoRA (lr 0.001)", "LoRA (lr 1e-05)")
    panels = [
        {text.get_text() for text in axes.texts}
        for axes in figure.axes
        if "LoRA" in {text.get_text() for text in axes.texts}
    ]
    assert len(panels) == 1
    assert panels[0] >= set(variants)
    for axes in figure.axes:  # a mark that is taken for a curve would be far outside of the ranks
        low = axes.get_xlim()[0]
        xs = np.concatenate([line.get_xdata() for line in axes.lines[1:]])
        assert low - 1 <= xs[np.isfinite(xs)].min()


def test_the_caption_names_the_variants_of_a_study_and_nothing_without_them() -> None:
    plain = [["full", "Full"], ["lora", "LoRA"]]
    title, text = captions.shown("loss", plain)
    assert (title, text) == (captions.CAPTIONS["loss"].title, captions.CAPTIONS["loss"].text)
    _, text = captions.shown("loss", [*plain, ["lora@fast", "LoRA (learning rate 0.001)"]])
    assert text.endswith("with another marker: LoRA (learning rate 0.001).")
    assert captions.shown("own_figure", plain) == ("Own figure", "")
