"""Results become tidy tables: a row for each run, for each example; what was not planned is refused."""

from pathlib import Path

import pandas as pd
import pytest

from helpers.planted import Planned, request, write
from helpers.stored import change
from rankwise.analysis import tables, tidy
from rankwise.core import result
from rankwise.core.store import StoreError


@pytest.fixture
def runs(tmp_path: Path) -> list[Planned]:
    """Two methods with two random seeds each, and a run that diverged."""
    found = []
    for seed, accuracy in enumerate((0.8, 0.9)):
        for method, rank in (("full", 0), ("lora", 4)):
            metrics = {"accuracy_fraction": accuracy, "trainable_parameters": 10}
            path = tmp_path / f"{method}{rank}{seed}"
            found.append(
                write(path, request(method, rank, seed), metrics=metrics, split="validation")
            )
    bad = request("rsvd", 4, 0)
    reason = "loss nan by update 3"
    return [*found, write(tmp_path / "bad", bad, status="diverged", reason=reason)]


def test_a_result_of_another_request_is_refused_by_name(runs) -> None:
    path = runs[1].path
    changed = result.read(path)["request"]
    changed["schedule"]["epochs"] = 4
    change(path, request=changed)
    message = (
        rf"lora40/{path.parent.name}/train\.json: it answers request \w+; allowed: a result of"
    )
    with pytest.raises(StoreError, match=message):
        tidy.collect(runs)


def test_a_table_has_a_row_for_each_run(runs) -> None:
    frame = tidy.collect(runs)
    assert len(frame) == 5
    assert set(frame["effective_batch_size"]) == {32}
    assert frame["request_digest"].tolist() == [run.path.parent.name for run in runs]
    assert set(frame["learning_rate"]) == {0.1}
    assert frame["status"].tolist() == ["ok"] * 4 + ["diverged"]
    assert frame["trainable_parameters"].dtype == "Int64", "whole numbers stay whole beside a gap"


# Examples -----------------------------------------------------------------------------------------


def scored(folder: Path) -> list[Planned]:
    """Two runs with scores of two examples each, and a run that diverged."""
    lists = {"loss_nats": [0.5, 0.25], "correct_fraction": [1.0, 0.0], "predictions": [1, 1]}
    good = [
        write(folder / method, request(method, 4, 0), metrics={}, examples=lists)
        for method in ("lora", "rsvd")
    ]
    bad = write(folder / "bad", request("full", 0, 0), status="diverged", reason="loss nan")
    return [*good, bad]


def test_examples_are_those_of_the_runs_that_ended_well(tmp_path: Path) -> None:
    planned = scored(tmp_path)
    tables.write_parquet(tidy.examples(planned), tmp_path / "examples.parquet")
    found = pd.read_parquet(tmp_path / "examples.parquet")
    assert list(found["method"]) == ["lora", "lora", "rsvd", "rsvd"]
    assert list(found["example"]) == [0, 1, 0, 1]
    assert list(found["loss_nats"]) == [0.5, 0.25, 0.5, 0.25]
    digests = {run.path.parent.name for run in planned[:2]}
    assert set(found["request_digest"]) == digests


def test_without_a_good_run_the_table_is_empty_and_has_its_columns(tmp_path: Path) -> None:
    found = tidy.examples(scored(tmp_path)[2:])
    assert len(found) == 0
    assert {"model", "method", "seed", "request_digest", "example"} <= {*found.columns}
