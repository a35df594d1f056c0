"""Two JSON values are compared in one place, which names where they differ."""

import pytest

from rankwise.core.compare import ABSENT, differences, machine, result_difference, shown

RESULT_PAIRS = {
    "the status tells most, so it comes first": (
        {"metrics": {"a": 1.0}, "status": "ok"}, {"metrics": {"a": 1.5}, "status": "diverged"}, ("status", "ok", "diverged"),
    ),
    "metrics come before examples": (
        {"examples": {"a": [1.0]}, "metrics": {"a": 1}}, {"examples": {"a": [0.0]}, "metrics": {"a": 2}}, ("metrics.a", 1, 2),
    ),
    "an item of a list": (
        {"history": [{"epoch": 1}, {"epoch": 2}]}, {"history": [{"epoch": 1}, {"epoch": 3}]}, ("history.1.epoch", 2, 3),
    ),
    "a list that is longer": ({"history": [1]}, {"history": [1, 2]}, ("history.1", ABSENT, 2)),
    "a key that one lacks": ({"a": {"b": 1}}, {"a": {}}, ("a.b", 1, ABSENT)),
    "None is a value, not a missing key": ({"a": None}, {}, ("a", None, ABSENT)),
    "times and energy at any depth": ({"a": {"update_time_s": 1, "energy_joules": 2}}, {"a": {"update_time_s": 2}}, None),
    "machine, cost and reason": ({"environment": {"a": 1}, "cost": {"a": 1}, "reason": "x"}, {"environment": {}, "cost": {}}, None),
    "equal": ({"metrics": {"a": [1, {"b": 2}]}}, {"metrics": {"a": [1, {"b": 2}]}}, None),
}  # fmt: skip


@pytest.mark.parametrize("case", RESULT_PAIRS)
def test_the_first_difference_of_two_results(case: str) -> None:
    first, second, expected = RESULT_PAIRS[case]
    assert result_difference(first, second) == expected


def test_all_differences_of_two_values_come_in_the_order_of_their_keys() -> None:
    first, second = {"b": [1, 2], "a": {"y": 1, "x": 1}}, {"b": [1, 3], "a": {"y": 2, "x": 3}}
    assert [difference.key for difference in differences(first, second)] == ["a.x", "a.y", "b.1"]


def test_a_list_may_be_one_value() -> None:
    found = list(differences({"b": [1, 2]}, {"b": [1, 3]}, into_lists=False))
    assert found == [("b", [1, 2], [1, 3])]


def test_a_value_in_a_message_is_json_and_short() -> None:
    assert shown({"b": 1, "a": None}) == '{"a": null, "b": 1}'
    assert shown(ABSENT) == "nothing"
    assert shown("x" * 100) == '"' + "x" * 56 + "..."


def test_the_machine_of_a_result_is_what_it_recorded() -> None:
    environment = {"processor": "Processor 1", "driver": "580", "platform": "Linux"}
    assert machine({"request": {}, "environment": environment}) == "cpu, Processor 1, 580, Linux"
    on_gpu = {"request": {"device": "cuda"}, "environment": {**environment, "device_name": "H100"}}
    assert machine(on_gpu) == "cuda, H100, 580, Linux"
