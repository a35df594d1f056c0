"""What the report holds: the workflow it draws, its scripts and sources, the answer it gives, its tables and histories."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from helpers.repository import CLEAN, ROOT, copy_repository, run_snakemake
from rankwise.report.html import answer, graph, libraries, losses, marks, quality, sheets
from rankwise.report.html import runs as page_runs
from rankwise.study import jobs as flow
from rankwise.study.plan import Plan

# The workflow -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("file", ["config/demo.yaml", "config/search_demo.yaml"])
def test_the_drawn_workflow_is_snakemakes(file: str, clone: Path) -> None:
    drawn = run_snakemake(
        clone, "results/report.html", "--configfile", file, "-n", "-F", "--rulegraph"
    ).stdout
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', drawn))
    edges = {(names[one], names[other]) for one, other in re.findall(r"(\d+) -> (\d+)", drawn)}
    counted = run_snakemake(
        clone, "results/report.html", "--configfile", file, "-n", "-F", "--quiet", "rules"
    )
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", counted.stdout + counted.stderr, re.MULTILINE))
    plan = Plan(yaml.safe_load((ROOT / file).read_text()), ROOT, file)
    assert {name: str(count) for name, count in flow.rule_counts(plan).items()} == {
        k: v for k, v in jobs.items() if k != "total"
    }
    assert set(flow.rule_edges(plan)) == edges


def test_a_picture_leaves_out_what_a_longer_way_says() -> None:
    edges = [("a", "b"), ("b", "c"), ("a", "c"), ("d", "c")]
    assert graph.reduced(edges) == [("a", "b"), ("b", "c"), ("d", "c")]
    assert graph.layers(["a", "b", "c", "d"], edges) == {"a": 0, "b": 1, "c": 2, "d": 1}
    assert graph.picture({"a": 1, "b": 2, "c": 3, "d": 1}, edges).count('class="edge"') == 3
    around = [("a", "b"), ("b", "c"), ("a", "d"), ("d", "e"), ("c", "e"), ("a", "e")]
    columns, steps = graph.lanes([("a", "d")], {"a": 0, "d": 2})
    assert (columns, steps) == ({"a": 0, "d": 2, "*a*1": 1}, [("a", "*a*1"), ("*a*1", "d")])
    assert graph.reduced(around) == around[:-1]


def test_an_edit_of_the_page_is_an_edit_of_its_sources(tmp_path: Path) -> None:
    """Style, script and template count as sources of the page's job, and of no other."""
    root = copy_repository(tmp_path / "clone")
    code = (
        "import json; from pathlib import Path; from rankwise.core.provenance import code_digests\n"
        "print(json.dumps([code_digests(Path(f'workflow_scripts/{name}.py')) for name in ('report', 'summary')]))"
    )

    def digests() -> list[dict]:
        environment = {**CLEAN, "PYTHONPATH": "src"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    before = digests()
    for name in ("page.css", "page.js", "run.js", "page.html"):
        file = root / "src/rankwise/report/html" / name
        file.write_text(file.read_text() + "\n")
    after = digests()
    changed = {name for name, digest in after[0].items() if before[0][name] != digest}
    assert changed == {
        f"rankwise.report.html/{name}" for name in ("page.css", "page.js", "run.js", "page.html")
    }
    assert after[1] == before[1]


def test_libraries_are_whole_scripts_and_the_policy_names_them() -> None:
    scripts = libraries.scripts()
    assert all("</script" not in text.lower() and "<!--" not in text for text in scripts)
    policy = libraries.policy(scripts)
    assert policy.count("'sha256-") == len(scripts)
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe-inline'" not in policy


# What it says -----------------------------------------------------------------------------------------------------------

LABELS = {"full": "Full AdamW", "lora": "LoRA", "rsvd": "rSVD"}


def runs(seeds: int) -> pd.DataFrame:
    rows = [
        {"model": "m", "dataset": "d", "method": method, "rank": rank, "seed": seed, "status": "ok", "split": "validation",
         "request_digest": f"{method}{rank}{seed}", "accuracy_fraction": value}
        for method, rank, value in (("full", 0, 0.9), ("lora", 8, 0.88), ("rsvd", 8, 0.7)) for seed in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def memory() -> pd.DataFrame:
    rows = [("full", 0, 2048), ("lora", 8, 512), ("rsvd", 8, 1024)]
    return pd.DataFrame([
        {"model": "m", "dataset": "d", "method": method, "rank": rank, "status": "ok", "request_digest": f"{method}m",
         **dict.fromkeys(marks.KEPT, 0), "optimizer_state_bytes": size}
        for method, rank, size in rows
    ])  # fmt: skip


def compared() -> pd.DataFrame:
    common = {
        "model": "m",
        "dataset": "d",
        "metric": "accuracy_fraction",
        "seeds": 3,
        "examples": 99,
        "margin": 0.01,
    }
    pairs = [
        ("full", 0, "lora", 8, 0.004, "tied"),
        ("full", 0, "rsvd", 8, 0.2, "a better"),
        ("lora", 8, "rsvd", 8, 0.18, "a better"),
    ]
    rows = [
        {**common, "method_a": a, "rank_a": i, "method_b": b, "rank_b": j, "difference": gap, "low": gap - 0.003, "high": gap + 0.003,
         "verdict": verdict}
        for a, i, b, j, gap, verdict in pairs
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_answer_says_what_the_tables_support_and_no_more() -> None:
    frames = {"runs": runs(3), "memory": memory(), "comparisons": compared()}
    said = " ".join(answer.answer(quality.groups(frames, LABELS), frames, LABELS)[0][1])
    assert "Full AdamW has the highest accuracy: 90.0 % (3 seeds)." in said
    assert (
        "Tied with it, the difference within the margin: LoRA r=8 (\N{MINUS SIGN}0.4 points)."
        in said
    )
    assert "Worse: rSVD r=8 (\N{MINUS SIGN}20.0 points)." in said
    assert (
        "Of these, LoRA r=8 keeps the least: 512 B of optimizer state, 75 % less than Full AdamW."
        in said
    )


def test_one_seed_is_no_evidence() -> None:
    frames = {
        "runs": runs(1),
        "memory": memory(),
        "comparisons": compared().assign(verdict="undecided", low=None, high=None),
    }
    said = " ".join(answer.answer(quality.groups(frames, LABELS), frames, LABELS)[0][1])
    assert "one seed: there are no intervals" in said
    assert not re.search("Tied|Worse|Better", said)


def test_a_comparison_is_told_from_the_side_of_the_other_curve() -> None:
    frames = {"runs": runs(3), "comparisons": compared()}
    group = quality.groups(frames, LABELS)["m", "d"]
    from rankwise.report.html.costs import against_best

    pairs = against_best(compared(), ("m", "d"), group).set_index("method")
    assert pairs["verdict"].to_dict() == {"lora": "tied", "rsvd": "worse"}
    assert pairs.loc["rsvd", "difference"] == -0.2
    assert pairs.loc["rsvd", "low"] < pairs.loc["rsvd", "difference"] < pairs.loc["rsvd", "high"]


def test_a_table_shows_few_columns_in_units_that_fit() -> None:
    frame = memory().assign(
        optimizer_state_bytes=[2**21, 2**20, 2**19], measured_weights_bytes=5, learning_rate=1e-3
    )
    sheet = sheets.sheet("memory", frame, LABELS, "tables/memory")
    shown = {column.name: column for column in sheet.columns}
    assert (shown["optimizer_state_bytes"].heading, shown["optimizer_state_bytes"].unit) == (
        "optimizer state",
        "MiB",
    )
    assert not shown["measured_weights_bytes"].shown
    assert sheet.caption == "m, d"
    place = list(shown).index("optimizer_state_bytes")
    assert [row[place] for row in sheet.rows] == [
        ("2.000", "2097152", "2,097,152"),
        ("1.000", "1048576", "1,048,576"),
        ("0.5000", "524288", "524,288"),
    ]
    assert [row[0][0] for row in sheet.rows] == ["Full AdamW", "LoRA", "rSVD"]
    assert sheet.rows[0][list(shown).index("request_digest")][0] == '<a href="#run/fullm">fullm</a>'


def test_histories_are_thinned_evenly_and_keep_their_ends() -> None:
    rows = pd.DataFrame({"run": ["a"] * 100 + ["b"] * 3, "update": [*range(100), *range(3)]})
    kept = rows[losses.thinned(rows, 10)]
    assert kept[kept["run"] == "a"]["update"].tolist() == [*range(0, 100, 10), 99]
    assert kept[kept["run"] == "b"]["update"].tolist() == [0, 1, 2]


def test_hundreds_of_runs_stay_affordable() -> None:
    """What requests have in common is kept once, histories are thinned: 400 long runs take less than 2 MB."""
    code = {f"rankwise.module_{i}": "0" * 16 for i in range(40)} | {
        "workflow_scripts/train.py": "1" * 16
    }
    history = [
        {"epoch": i / 100, "update": i, "selection_loss_nats": 0.123456789 / (i + 1)}
        for i in range(1000)
    ]
    results = [
        {"measurement": "train", "path": f"results/runs/m/d/lora/r8/seed{seed}/train.json", "status": "ok", "history": history,
         "environment": {"python": "3.11", "job_time_s": seed / 7}, "metrics": {"accuracy_fraction": 0.5},
         "request": {"cell": {"model": "m", "dataset": "d", "method": "lora", "rank": 8, "seed": seed}, "code": code}}
        for seed in range(400)
    ]  # fmt: skip
    kept = page_runs.collected(results, LABELS)
    assert len(json.dumps(kept)) < 2_000_000
    assert len(kept["runs"]) == 400
    assert len(kept["parts"]) == 2  # the sources, the environment
    for one in kept["runs"].values():
        assert [one["history"]["rows"][i][1] for i in (0, -1)] == [0, 999]
        assert one["history"]["of"] == 1000
    assert len({one["job"]["job_time_s"] for one in kept["runs"].values()}) == 400
