"""A table's files hold what was written, whatever the entries are called."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rankwise.analysis import tables

# Words that pandas or a spreadsheet takes for a missing value, a truth value or a number.
ODD_NAMES = ["nan", "null", "None", "NA", "-NaN", "true", "007", "1e5"]


@pytest.mark.parametrize("column", ["model", "dataset", "method", "method_a", "method_b"])
def test_an_entry_may_be_called_like_a_missing_value(tmp_path: Path, column: str) -> None:
    frame = pd.DataFrame(
        {column: ODD_NAMES, "accuracy_fraction": np.linspace(0, 1, len(ODD_NAMES))}
    )
    tables.write(frame, tmp_path / "runs")
    read = tables.read(tmp_path / "runs.csv")
    assert list(read[column]) == ODD_NAMES
    assert read["accuracy_fraction"].dtype == float


def test_an_entry_with_a_number_for_its_name_stays_a_text(tmp_path: Path) -> None:
    tables.write(pd.DataFrame({"method": ["007", "8"], "rank": [0, 4]}), tmp_path / "runs")
    read = tables.read(tmp_path / "runs.csv")
    assert list(read["method"]) == ["007", "8"]
    assert list(read["rank"]) == [0, 4]


def test_only_an_empty_field_is_missing(tmp_path: Path) -> None:
    frame = pd.DataFrame({
        "method": ["full", "lora"], "reason": [None, "null"], "perplexity": [np.nan, np.inf],
    })  # fmt: skip
    tables.write(frame, tmp_path / "runs")
    read = tables.read(tmp_path / "runs.csv")
    assert list(read["reason"].isna()) == [True, False]
    assert read["reason"][1] == "null"
    assert np.isnan(read["perplexity"][0])
    assert read["perplexity"][1] == np.inf
