"""Each colour means one thing, and readers with colour vision deficiencies can tell colours apart."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb

from rankwise.report import fits, latency, memory, palettes, style
from rankwise.report.html import vega
from rankwise.study import outputs

PALETTES = {
    "methods": list(palettes.METHODS),
    "memory": list(palettes.MEMORY.values()),
    "phases": list(palettes.PHASES.values()),
    "pairs": list(palettes.PAIRS.values()),
    "claims": list(palettes.CLAIMS.values()),
}
# Machado, Oliveira and Fernandes 2009, table 1, severity 1.0: matrices for linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array([
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ]),
    "deuteranopia": np.array([
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]),
    "tritanopia": np.array([
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ]),
}  # fmt: skip
TO_XYZ = np.array([
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
])  # fmt: skip
WHITE = np.array([0.95047, 1.0, 1.08883])  # D65
JUST_NOTICEABLE = 2.3  # CIE 1976: Mahy, Van Eycken and Oosterlinck 1994


def lab(colour: str, vision: str) -> np.ndarray:
    """CIELAB of an sRGB colour as a reader with this vision sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(VISION[vision] @ linear, 0, 1)
    ratio = TO_XYZ @ seen / WHITE
    x, y, z = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def least_distance(colours: list[str], vision: str) -> float:
    seen = [lab(colour, vision) for colour in colours]
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("name", PALETTES)
def test_colours_of_a_palette_differ_for_every_reader(name: str, vision: str) -> None:
    assert least_distance(PALETTES[name], vision) > 5 * JUST_NOTICEABLE


def test_the_simulation_is_right_where_it_is_known() -> None:
    assert np.allclose(lab("#FFFFFF", "normal"), [100, 0, 0], atol=0.01)
    assert np.allclose(lab("#FF0000", "normal"), [53.24, 80.09, 67.20], atol=0.02)
    for vision in VISION:  # greys are seen alike
        assert np.allclose(lab("#808080", vision), lab("#808080", "normal"), atol=0.1)
    # Red and green of one lightness: the classic pair that deuteranopes confuse.
    assert least_distance(["#C00000", "#5F6B00"], "deuteranopia") < least_distance(
        ["#C00000", "#5F6B00"], "normal"
    )


def test_no_colour_is_in_two_palettes() -> None:
    for first, second in itertools.combinations(PALETTES, 2):
        for a, b in itertools.product(PALETTES[first], PALETTES[second]):
            distance = np.linalg.norm(lab(a, "normal") - lab(b, "normal"))
            assert distance > 4 * JUST_NOTICEABLE, (first, a, second, b)


def test_a_variant_has_the_colour_of_its_method_and_a_look_of_its_own(plan) -> None:
    before = dict(outputs.labels(plan))
    labels = {}
    for name, label in before.items():
        labels[name] = label
        if name in ("lora", "olora"):  # these two have one colour
            labels |= {f"{name}@fast": f"{label}, fast", f"{name}@slow": f"{label}, slow"}
    assert all(style.look(name, labels) == style.look(name, before) for name in before)
    assert style.look("lora", labels)[0] == style.look("olora", labels)[0]
    looks = [style.look(name, labels) for name in labels]
    assert len(set(looks)) == len(looks)
    for name in ("lora", "olora"):
        own = [name, f"{name}@fast", f"{name}@slow"]
        assert len({style.look(method, labels)[0] for method in own}) == 1
        assert len({str(style.dash(method, labels)) for method in own}) == 3
    legend = vega.method_legend(["lora", "lora@fast"], labels)
    assert [entry["label"] for entry in legend] == [labels["lora"], labels["lora@fast"]]
    assert legend[0]["colour"] == legend[1]["colour"]
    assert legend[0]["shape"] != legend[1]["shape"]


def test_the_page_can_draw_every_marker() -> None:
    assert {*palettes.MARKERS, *palettes.VARIANT_MARKERS} == set(vega.SHAPES)
    assert style.svg_path("d") == "M0,1L0.6,0L0,-1L-0.6,0Z"  # a thin diamond


CELL = {"model": "m", "dataset": "d", "rank": 0, "status": "ok"}
TIMES = {"forward_latency_q1_s": 1.0, "forward_latency_s": 1.0, "forward_latency_q3_s": 1.0}
PASS = {**CELL, "batch_size": 1, "sequence_length_tokens": 8, **TIMES}
SAMPLED = {
    "memory": (memory, {"memory": [{**CELL, "optimizer_state_bytes": 8}]}),
    "latency": (latency, {"forward": [{**PASS, "merged": True}]}),
    "fits": (fits, {"fits": [
        {**CELL, "memory_gib": size, "sequence_length_tokens": 8, "largest_batch_size": size}
        for size in (4, 8, 16)
    ]}),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLED)
def test_what_a_legend_shows_beside_methods_has_the_colour_of_no_method(name: str) -> None:
    module, tables = SAMPLED[name]
    labels = {"frozen": "Frozen", "full": "Full"}
    frames = {
        key: pd.DataFrame([{**row, "method": method} for method in labels for row in rows])
        for key, rows in tables.items()
    }
    figure = module.draw(frames, labels)
    colours = [
        to_hex(handle.get_color()).upper()
        for legend in figure.legends
        for handle in legend.legend_handles
    ]
    assert colours
    assert not {*colours} & {*palettes.METHODS}
