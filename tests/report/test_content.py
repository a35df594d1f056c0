"""What the page holds: its workflow, scripts, sources, answer, tables and histories."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

from helpers.repository import CLEAN, copy_repository
from rankwise.report.html import (
    comparisons,
    facets,
    graph,
    groups,
    libraries,
    losses,
    sheets,
    vega,
)
from rankwise.report.html import runs as page_runs

# The workflow ----------------------------------------------------------------------------------


def test_a_picture_leaves_out_edges_that_a_longer_way_replaces() -> None:
    edges = [("a", "b"), ("b", "c"), ("a", "c"), ("d", "c")]
    assert graph.reduced(edges) == [("a", "b"), ("b", "c"), ("d", "c")]
    assert graph.layers(["a", "b", "c", "d"], edges) == {"a": 0, "b": 1, "c": 2, "d": 1}
    assert graph.picture({"a": 1, "b": 2, "c": 3, "d": 1}, edges).count('class="edge"') == 3
    two_ways = [("a", "b"), ("b", "c"), ("a", "d"), ("d", "e"), ("c", "e"), ("a", "e")]
    assert graph.reduced(two_ways) == two_ways[:-1]


def test_a_line_passes_a_column_in_a_lane() -> None:
    columns, steps = graph.lanes([("a", "d")], {"a": 0, "d": 2})
    assert columns == {"a": 0, "d": 2, "*a*1": 1}
    assert steps == [("a", "*a*1"), ("*a*1", "d")]


def source_digests(root: Path) -> dict[str, dict[str, str]]:
    """Digests of the sources of two scripts, as a process in `root` finds them."""
    code = (
        "import json; from pathlib import Path\n"
        "from rankwise.core.provenance import code_digests\n"
        "scripts = {n: Path(f'workflow_scripts/{n}.py') for n in ('report', 'summary')}\n"
        "print(json.dumps({name: code_digests(path) for name, path in scripts.items()}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**CLEAN, "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_an_edit_of_the_page_is_an_edit_of_its_sources(tmp_path: Path) -> None:
    """Style, script and template count as sources of the page's job, and of no other."""
    root = copy_repository(tmp_path / "clone")
    before = source_digests(root)
    names = ("page.css", "page.js", "run.js", "page.html")
    for name in names:
        file = root / "src/rankwise/report/html" / name
        file.write_text(file.read_text() + "\n")
    after = source_digests(root)
    page = after["report"]
    changed = {name for name, digest in page.items() if before["report"][name] != digest}
    assert changed == {f"rankwise.report.html/{name}" for name in names}
    assert after["summary"] == before["summary"]


def test_libraries_are_whole_scripts_and_the_policy_names_them() -> None:
    scripts = libraries.scripts()
    assert all("</script" not in text.lower() and "<!--" not in text for text in scripts)
    policy = libraries.policy(scripts)
    assert policy.count("'sha256-") == len(scripts)
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe-inline'" not in policy


# What it says ----------------------------------------------------------------------------------

LABELS = {"full": "Full AdamW", "lora": "LoRA", "rsvd": "rSVD"}
CURVES = [("full", 0, 0.9, 2048), ("lora", 8, 0.88, 512), ("rsvd", 8, 0.7, 1024)]


def runs_table(seeds: int) -> pd.DataFrame:
    rows = []
    for method, rank, accuracy, _ in CURVES:
        for seed in range(seeds):
            cell = {"model": "m", "dataset": "d", "method": method, "rank": rank, "seed": seed}
            result = {"status": "ok", "split": "validation", "accuracy_fraction": accuracy}
            rows.append({**cell, **result, "request_digest": f"{method}{rank}{seed}"})
    return pd.DataFrame(rows)


def memory_table() -> pd.DataFrame:
    rows = []
    for method, rank, _, state_bytes in CURVES:
        cell = {"model": "m", "dataset": "d", "method": method, "rank": rank, "status": "ok"}
        sizes = {**dict.fromkeys(vega.KEPT, 0), "optimizer_state_bytes": state_bytes}
        rows.append({**cell, "request_digest": f"{method}m", **sizes})
    return pd.DataFrame(rows)


def comparisons_table() -> pd.DataFrame:
    rows = []
    for a, rank_a, b, rank_b, difference, verdict in (
        ("full", 0, "lora", 8, 0.004, "tied"),
        ("full", 0, "rsvd", 8, 0.2, "a better"),
        ("lora", 8, "rsvd", 8, 0.18, "a better"),
    ):
        where = {"model": "m", "dataset": "d", "metric": "accuracy_fraction"}
        curves = {"method_a": a, "rank_a": rank_a, "method_b": b, "rank_b": rank_b}
        interval = {"low": difference - 0.003, "high": difference + 0.003}
        numbers = {"difference": difference, **interval, "seeds": 3, "examples": 99}
        rows.append({**where, **curves, **numbers, "margin": 0.01, "verdict": verdict})
    return pd.DataFrame(rows)


def test_a_comparison_is_told_from_the_side_of_the_other_curve() -> None:
    group = groups.by_panel({"runs": runs_table(3)}, LABELS)["m", "d"]
    pairs = comparisons.against_best(comparisons_table(), ("m", "d"), group).set_index("method")
    assert pairs["verdict"].to_dict() == {"lora": "tied", "rsvd": "worse"}
    assert pairs.loc["rsvd", "difference"] == -0.2
    assert pairs.loc["rsvd", "low"] < pairs.loc["rsvd", "difference"] < pairs.loc["rsvd", "high"]


def test_a_table_shows_few_columns_in_units_that_fit() -> None:
    sizes = {"optimizer_state_bytes": [2**21, 2**20, 2**19], "measured_weights_bytes": 5}
    sheet = sheets.sheet("memory", memory_table().assign(**sizes), LABELS, "tables/memory")
    columns = {column.name: column for column in sheet.columns}
    state = columns["optimizer_state_bytes"]
    assert (state.heading, state.unit) == ("optimizer state", "MiB")
    assert not columns["measured_weights_bytes"].shown
    assert sheet.caption == "m, d"
    place = list(columns).index("optimizer_state_bytes")
    assert [row[place] for row in sheet.rows] == [
        ("2.000", "2097152", "2,097,152"),
        ("1.000", "1048576", "1,048,576"),
        ("0.5000", "524288", "524,288"),
    ]
    assert [row[0].html for row in sheet.rows] == ["Full AdamW", "LoRA", "rSVD"]
    link = sheet.rows[0][list(columns).index("request_digest")]
    assert link.html == '<a href="#run/fullm">fullm</a>'


def test_histories_are_thinned_evenly_and_keep_their_ends() -> None:
    rows = pd.DataFrame({"run": ["a"] * 100 + ["b"] * 3, "update": [*range(100), *range(3)]})
    kept = rows[losses.is_kept(rows, 10)]
    assert kept[kept["run"] == "a"]["update"].tolist() == [*range(0, 100, 10), 99]
    assert kept[kept["run"] == "b"]["update"].tolist() == [0, 1, 2]


def test_hundreds_of_runs_stay_affordable() -> None:
    """Shared parts of requests are kept once, histories are thinned: 400 long runs < 2 MB."""
    code = {f"rankwise.module_{i}": "0" * 16 for i in range(40)}
    code["workflow_scripts/train.py"] = "1" * 16
    history = []
    for i in range(1000):
        loss = 0.123456789 / (i + 1)
        history.append({"epoch": i / 100, "update": i, "selection_loss_nats": loss})
    results = []
    for seed in range(400):
        cell = {"model": "m", "dataset": "d", "method": "lora", "rank": 8, "seed": seed}
        result = {
            "measurement": "train",
            "path": f"results/runs/m/d/lora/r8/seed{seed}/train.json",
            "status": "ok",
            "history": history,
            "environment": {"python": "3.11", "job_time_s": seed / 7},
            "metrics": {"accuracy_fraction": 0.5},
            "cell": cell,
            "request": {"cell": cell, "code": code},
        }
        results.append(result)
    kept = page_runs.collected(results, LABELS)
    assert len(json.dumps(kept)) < 2_000_000
    assert len(kept["runs"]) == 400
    assert len(kept["parts"]) == 2  # the sources, the environment
    for run in kept["runs"].values():
        assert [run["history"]["rows"][i][1] for i in (0, -1)] == [0, 999]
        assert run["history"]["of"] == 1000
    assert len({run["job"]["job_time_s"] for run in kept["runs"].values()}) == 400


def test_the_family_of_a_method_is_what_trains() -> None:
    wanted = {
        ("lora", "adamw"): "LoRA",
        ("sparse_lora", "adamw"): "LoRA",
        ("vera", "adamw"): "other adapters of peft",
        ("prefix_tuning", "adamw"): "prompts",
        ("adapter", "adamw"): "adapter",
        ("full", "adamw"): "full fine-tuning",
        ("full", "lomo"): "full fine-tuning",
        ("full", "projected_adam"): "projected gradients",
        ("full", "apollo"): "projected gradients",
    }
    assert {pair: facets.family(*pair) for pair in wanted} == wanted


def test_a_filter_has_several_values_and_counts_runs() -> None:
    results = []
    for method, rank, seed in (("full", 0, 0), ("lora", 8, 0), ("lora", 8, 1), ("lora@fast", 8, 0)):
        cell = {"model": "m", "dataset": "d", "method": method, "rank": rank, "seed": seed}
        results.append({"measurement": "train", "request": {"cell": cell}})
    found = facets.facets(results, {"full": "full fine-tuning", "lora": "LoRA"})
    values = {facet["key"]: facet["values"] for facet in found["facets"]}
    assert values == {"family": ["full fine-tuning", "LoRA"], "rank": ["none", "8"]}
    assert found["families"]["lora@fast"] == "LoRA"
    assert ["m", "d", "lora", 8, 2] in found["counts"]


def test_a_wide_study_shows_means_of_its_losses(monkeypatch) -> None:
    """A mean is over all seeds of a curve; an update that one seed lacks has none."""
    monkeypatch.setattr(losses, "MAX_LINES", 5)
    rows = []
    for run in runs_table(2).to_dict("records"):
        for update in (0, 10, 20)[: 3 - (run["seed"] == 1 and run["method"] == "lora")]:
            cell = {name: run[name] for name in ("model", "dataset", "method", "rank", "seed")}
            loss = {"selection_loss_nats": update + 2.0 * run["seed"]}
            rows.append({**cell, "epoch": update / 10, "update": update, **loss})
    frames = {"runs": runs_table(2), "history": pd.DataFrame(rows)}
    (chart,) = losses.charts(frames, LABELS)
    points = pd.DataFrame(chart.panels[0].spec["datasets"]["points"]).groupby("method")["value"]
    assert points.apply(list).to_dict() == {
        "full": [1, 11, 21],
        "lora": [1, 11],
        "rsvd": [1, 11, 21],
    }
    assert "mean over the seeds" in chart.caption
