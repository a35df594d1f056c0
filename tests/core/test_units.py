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
