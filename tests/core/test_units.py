"""A column's name says what it measures, and in which unit."""

import pytest

from rankwise.core import units


@pytest.mark.parametrize(("column", "quantity", "unit"), [
    ("optimizer_state_mib", "optimizer_state", "MiB"),
    ("step_time_s", "step_time", "s"),
    ("trainable_parameters", "trainable_parameters", "parameters"),
    ("accuracy_fraction", "accuracy", ""),
    ("updates", "updates", ""),
])  # fmt: skip
def test_a_name_is_a_quantity_and_a_unit(column: str, quantity: str, unit: str) -> None:
    assert (units.quantity(column), units.unit(column)) == (quantity, unit)


def test_the_table_of_a_column_has_its_quantity_in_any_unit() -> None:
    columns = {"runs": ["accuracy_fraction"], "memory": ["optimizer_state_bytes"]}
    assert units.of_column("optimizer_state_mib", columns) == "memory"
    assert units.of_column("accuracy_low_percent", columns) == "runs"
    assert units.of_column("unknown_s", columns) == "runs"


@pytest.mark.parametrize(("seconds", "words"), [
    (0, "less than a second"),
    (0.4, "less than a second"),
    (0.5, "1 second"),
    (0.7, "1 second"),
    (40, "40 seconds"),
    (59.4, "59 seconds"),
    (59.6, "1 minute"),
    (792, "13 minutes"),  # 0.22 h
    (3569, "59 minutes"),
    (3590, "1 hour"),
    (7500, "2 hours 5 minutes"),
    (86_370, "1 day"),
    (86_400 * 3 + 3600 * 4 + 900, "3 days 4 hours"),
])  # fmt: skip
def test_a_length_of_time_is_told_in_words(seconds: float, words: str) -> None:
    assert units.duration(seconds) == words
