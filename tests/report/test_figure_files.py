"""Figures are the same bytes every time, name the runs that they show, and miss none."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from helpers.planted import Planned, request, write
from helpers.repository import ROOT
from rankwise.analysis import tidy
from rankwise.report import accuracy_memory, loss, memory, style
from rankwise.study import jobs, outputs

LABELS = {"full": "Full", "lora": "LoRA", "rsvd": "rSVD"}
DIGEST = "0123456789abcdef"


@pytest.fixture
def runs(tmp_path: Path) -> list[Planned]:
    """Two methods with two random seeds each and a history."""
    found = []
    for seed, accuracy in enumerate((0.8, 0.9)):
        for method, rank, bonus in (("full", 0, 0.05), ("lora", 4, 0.0)):
            history = [
                {"epoch": float(e), "update": e, "selection_loss_nats": 1.0 / (e + 1)}
                for e in range(3)
            ]
            metrics = {"accuracy_fraction": accuracy + bonus, "trainable_parameters": 10}
            path = tmp_path / f"{method}{rank}{seed}.json"
            asked = request(method, rank, seed)
            found.append(write(path, asked, metrics=metrics, history=history, split="validation"))
    return found


def profiles(folder: Path) -> list[Planned]:
    """A memory profile of each method."""
    found = []
    for method, rank, size in (("full", 0, 4000), ("lora", 4, 400), ("rsvd", 4, 4000)):
        cell = {"model": "m", "dataset": "d", "method": method, "rank": rank}
        metrics = {
            "weights_bytes": 4000,
            "quantization_bytes": 0,
            "gradients_bytes": size,
            "optimizer_state_bytes": 2 * size,
        }
        found.append(write(folder / f"memory_{method}.json", {"cell": cell}, metrics=metrics))
    return found


def test_figures_are_the_same_bytes_every_time_and_name_their_runs(runs, tmp_path: Path) -> None:
    data = {
        "runs": tidy.collect(runs),
        "history": tidy.listed(runs, "history"),
        "memory": tidy.collect(profiles(tmp_path)),
    }
    for module in (memory, loss, accuracy_memory):
        name = module.__name__.rpartition(".")[2]
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir(exist_ok=True)
            style.save(module.draw(data, LABELS), tmp_path / folder / f"{name}.png", [DIGEST])
        for end in ("png", "svg"):
            one, other = (tmp_path / folder / f"{name}.{end}" for folder in ("a", "b"))
            assert one.read_bytes() == other.read_bytes()
        written = Image.open(tmp_path / "a" / f"{name}.png").info
        assert DIGEST in json.dumps(written, default=str)


def test_a_figure_without_its_runs_says_which(runs) -> None:
    columns = ["model", "dataset", "method", "rank", *accuracy_memory.PARTS]
    data = {"runs": tidy.collect(runs), "memory": pd.DataFrame(columns=columns)}
    with pytest.raises(ValueError, match="no memory profile"):
        accuracy_memory.draw(data, LABELS)


def test_a_method_has_one_colour_whatever_the_study(plan) -> None:
    labels = dict(outputs.labels(plan))
    looks = [style.look(method, labels) for method in labels]
    assert len(set(looks)) == len(looks)


def test_what_the_demo_writes_is_what_the_readme_says(plan) -> None:
    targets = jobs.targets(plan)
    for name in ("memory", "loss", "accuracy_memory"):
        assert f"results/demo/figures/{name}.png" in targets
    named = set(re.findall(r"`(\w+)`", (ROOT / "docs/results.md").read_text()))
    assert {"accuracy_fraction", "optimizer_state_bytes", "step_flops", "request_digest"} <= named
    assert "forward_latency_s" in named
