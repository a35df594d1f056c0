"""Results are whole, carry units and answer the planned request; tables and figures are made from nothing else."""

import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest

from helpers.repository import ROOT
from rankwise.analysis import tidy
from rankwise.core import provenance, result
from rankwise.report import accuracy_memory, loss, memory, style
from rankwise.study import jobs, outputs


def write(path: Path, request: dict, **found: object) -> tuple[Path, dict]:
    result.write(path, request, found, {})
    return path, request


def request(method: str, rank: int, seed: int) -> dict:
    cell = {"model": "m", "dataset": "d", "method": method, "rank": rank, "seed": seed}
    schedule = {"batch_size": 8, "accumulation_steps": 4, "epochs": 3}
    return {
        "cell": cell,
        "method": {"learning_rate": 0.1, "options": {}, "optimizer": {}},
        "schedule": schedule,
    }


@pytest.fixture
def runs(tmp_path: Path) -> list[tuple[Path, dict]]:
    found = []
    for seed, accuracy in enumerate((0.8, 0.9)):
        for method, rank, bonus in (("full", 0, 0.05), ("lora", 4, 0.0)):
            history = [
                {"epoch": float(e), "update": e, "selection_loss_nats": 1.0 / (e + 1)}
                for e in range(3)
            ]
            metrics = {"accuracy_fraction": accuracy + bonus, "trainable_parameters": 10}
            path = tmp_path / f"{method}{rank}{seed}.json"
            found.append(
                write(
                    path,
                    request(method, rank, seed),
                    metrics=metrics,
                    history=history,
                    split="validation",
                )
            )
    found.append(
        write(
            tmp_path / "bad.json",
            request("rsvd", 4, 0),
            status="diverged",
            reason="loss nan by update 3",
        )
    )
    return found


@pytest.mark.parametrize("column", ["accuracy", "memory_mb", "time"])
def test_a_number_without_a_unit_is_refused(column: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"column '{column}' has no unit"):
        write(tmp_path / "x.json", {}, metrics={column: 1.0})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_last_good_result(tmp_path: Path) -> None:
    path, _ = write(tmp_path / "x.json", {"a": 1}, metrics={"eval_loss_nats": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        write(path, {"a": 2}, metrics={"eval_loss_nats": math.nan})
    assert result.read(path)["request"] == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_an_unknown_status_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="status 'fine', allowed: ok, out_of_memory, diverged, unsupported"
    ):
        write(tmp_path / "x.json", {}, status="fine")


def test_a_stale_result_is_refused_by_name(runs) -> None:
    path, planned = runs[1]
    changed = {**planned, "schedule": {**planned["schedule"], "epochs": 4}}
    with pytest.raises(
        tidy.StaleResult,
        match=r"1 of 5 results are stale; first .*lora40\.json.*schedule\.epochs: result has 3, planned 4",
    ):
        tidy.collect([runs[0], (path, changed), *runs[2:]])


def test_one_row_a_run(runs) -> None:
    frame = tidy.collect(runs)
    assert len(frame) == 5
    assert set(frame["effective_batch_size"]) == {32}
    assert frame["request_digest"].tolist() == [provenance.digest(planned) for _, planned in runs]
    assert set(frame["learning_rate"]) == {0.1}


def test_figures_are_the_same_bytes_every_time_and_name_their_runs(runs, tmp_path: Path) -> None:
    from PIL import Image

    labels = {"full": "Full", "lora": "LoRA", "rsvd": "rSVD"}
    profile = [
        write(tmp_path / f"p{method}.json", {"cell": {"model": "m", "dataset": "d", "method": method, "rank": rank}},
              metrics={"weights_bytes": 4000, "quantization_bytes": 0, "gradients_bytes": size, "optimizer_state_bytes": 2 * size})
        for method, rank, size in (("full", 0, 4000), ("lora", 4, 400), ("rsvd", 4, 4000))
    ]  # fmt: skip
    data = {
        "runs": tidy.collect(runs),
        "history": tidy.listed(runs, "history"),
        "memory": tidy.collect(profile),
    }
    for module in (memory, loss, accuracy_memory):
        name = module.__name__.rpartition(".")[2]
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir(exist_ok=True)
            style.save(
                module.draw(data, labels), tmp_path / folder / f"{name}.png", ["0123456789abcdef"]
            )
        for end in ("png", "svg"):
            one, other = (tmp_path / folder / f"{name}.{end}" for folder in ("a", "b"))
            assert one.read_bytes() == other.read_bytes()
        assert "0123456789abcdef" in json.dumps(
            Image.open(tmp_path / "a" / f"{name}.png").info, default=str
        )


def test_a_figure_without_its_runs_says_which(runs) -> None:
    data = {
        "runs": tidy.collect(runs),
        "memory": pd.DataFrame(
            columns=["model", "dataset", "method", "rank", *accuracy_memory.PARTS]
        ),
    }
    with pytest.raises(ValueError, match="no memory profile"):
        accuracy_memory.draw(data, {"full": "Full", "lora": "LoRA", "rsvd": "rSVD"})


def test_a_method_has_one_colour_whatever_the_study(plan) -> None:
    labels = dict(outputs.labels(plan))
    looks = [style.look(method, labels) for method in labels]
    assert len(set(looks)) == len(looks)


def test_what_the_demo_writes_is_what_the_readme_says(plan) -> None:
    found = jobs.targets(plan)
    for name in ("memory", "loss", "accuracy_memory"):
        assert f"results/figures/{name}.png" in found
    written = {
        column
        for line in (ROOT / "results/README.md").read_text().splitlines()
        for column in re.findall(r"`(\w+)`", line)
    }
    assert {
        "accuracy_fraction",
        "optimizer_state_bytes",
        "step_flops",
        "forward_latency_s",
        "request_digest",
    } <= written


def test_a_claim_is_decided_by_the_table_alone(plan) -> None:
    from rankwise.analysis.claim_verdicts import judge
    from rankwise.study.claims import expand

    claims = {
        name: entry
        for name, entry in expand(plan.library["claims"]).items()
        if "optimizer_memory_rsvd" in name
    }
    cell = {"model": "distilbert", "dataset": "sst2", "method": "rsvd", "status": "ok"}
    frame = pd.DataFrame(
        [
            {**cell, "rank": 4, "optimizer_state_bytes": 3060664},
            {**cell, "rank": 8, "optimizer_state_bytes": 5625689},
        ]
    )
    verdicts = judge(claims, {"memory": frame}).set_index("rank")["verdict"].to_dict()
    assert verdicts == {
        4: "reproduced",
        8: "not reproduced",
        16: "not yet run",
        64: "not yet run",
        128: "not yet run",
    }
    claims["a_optimizer_memory_rsvd_r4"]["published"] += 1
    assert judge(claims, {"memory": frame})["verdict"].tolist()[0] == "not reproduced"
