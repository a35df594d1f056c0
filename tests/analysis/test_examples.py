"""The long table: a row an example and run, as the runs scored them."""

from pathlib import Path

import pandas as pd

from analysis.test_gather import request, write
from rankwise.analysis import tables, tidy
from rankwise.core import provenance


def scored(folder: Path) -> list[tuple[Path, dict]]:
    lists = {"loss_nats": [0.5, 0.25], "correct_fraction": [1.0, 0.0], "predictions": [1, 1]}
    good = [
        write(folder / f"{m}.json", request(m, 4, 0), metrics={}, examples=lists)
        for m in ("lora", "rsvd")
    ]
    return [
        *good,
        write(
            folder / "bad.json",
            request("full", 0, 0),
            status="diverged",
            reason="loss nan by update 3",
        ),
    ]


def test_a_row_an_example_of_the_runs_that_ended_well(tmp_path: Path) -> None:
    pairs = scored(tmp_path)
    tables.write_parquet(tidy.examples(pairs), tmp_path / "examples.parquet")
    found = pd.read_parquet(tmp_path / "examples.parquet")
    assert list(found["method"]) == ["lora", "lora", "rsvd", "rsvd"]
    assert list(found["example"]) == [0, 1, 0, 1]
    assert list(found["loss_nats"]) == [0.5, 0.25, 0.5, 0.25]
    assert set(found["request_digest"]) == {provenance.digest(one) for _, one in pairs[:2]}


def test_without_a_good_run_the_table_is_empty_and_has_its_columns(tmp_path: Path) -> None:
    found = tidy.examples(scored(tmp_path)[2:])
    assert len(found) == 0
    assert {"model", "method", "seed", "request_digest", "example"} <= {*found.columns}
