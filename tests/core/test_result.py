"""Results are written whole or not at all, and every number in them has a unit."""

import math
from pathlib import Path

import pytest

from rankwise.core import result


def write(path: Path, request: dict, **found: object) -> None:
    result.write(path, request, found, {})


@pytest.mark.parametrize("column", ["accuracy", "memory_mb", "time"])
@pytest.mark.parametrize("part", ["metrics", "cost"])
def test_a_number_without_a_unit_is_refused(column: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"column '{column}' has no unit"):
        write(tmp_path / "x.json", {}, **{part: {column: 1.0}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("found", [{"history": [{"time": 1}]}, {"examples": {"loss": [0.5]}}])
def test_a_list_of_numbers_needs_a_unit_too(found: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no unit"):
        write(tmp_path / "x.json", {}, **found)


def test_a_failed_write_leaves_the_last_good_result(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write(path, {"a": 1}, metrics={"eval_loss_nats": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        write(path, {"a": 2}, metrics={"eval_loss_nats": math.nan})
    assert result.read(path)["request"] == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_an_unknown_status_is_refused(tmp_path: Path) -> None:
    message = "status 'fine', allowed: ok, out_of_memory, diverged, unsupported"
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "x.json", {}, status="fine")
