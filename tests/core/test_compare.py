"""Two JSON values are compared in one place, which names where they differ."""

import pytest

from rankwise.core.compare import (
    ABSENT,
    Difference,
    amount,
    differences,
    machine,
    result_difference,
    shown,
    tolerated_difference,
)

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


def on(processor: str, capability: str | None = None, device: str = "cpu", **found: object) -> dict:
    """A result that was computed on a processor."""
    environment = {"processor": processor}
    if capability:
        environment["cpu_capability"] = capability
    return {"request": {"device": device}, "environment": environment, "status": "ok", **found}


NEAR = {"metrics": {"a_fraction": 0.5}, "examples": {"loss_nats": [1.0]}}
# What may differ from NEAR between two CPUs: 0.1 % of a mean, 1 % of an example, 1e-5 of anything.
TOLERATED = [
    {"metrics": {"a_fraction": 0.5004}},
    {"examples": {"loss_nats": [1.009]}},
    {"metrics": {"a_fraction": 0.500009}},
]
REFUSED = [
    ({"metrics": {"a_fraction": 0.5006}}, "metrics.a_fraction"),
    ({"examples": {"loss_nats": [1.02]}}, "examples.loss_nats.0"),
    ({"examples": {"loss_nats": [1.0, 1.0]}}, "examples.loss_nats.1"),
    ({"status": "diverged"}, "status"),
    ({"metrics": {"a_fraction": float("nan")}}, "metrics.a_fraction"),
]
TWO_CPUS = [
    (on("one", **NEAR), on("two", **NEAR)),
    (on("one", "AVX2", **NEAR), on("one", "AVX512", **NEAR)),
]
ONE_CPU = [
    (on("one", **NEAR), on("one", **NEAR)),
    (on("one", "AVX2", **NEAR), on("one", "AVX2", **NEAR)),
    (on("one", **NEAR), on("one", "AVX2", **NEAR)),  # an older result does not record the kernels
    (on("one", device="cuda", **NEAR), on("two", device="cuda", **NEAR)),
]


@pytest.mark.parametrize("change", TOLERATED)
@pytest.mark.parametrize("pair", TWO_CPUS)
def test_results_of_two_cpus_may_differ_a_little(pair: tuple, change: dict) -> None:
    first, second = pair[0], {**pair[1], **change}
    assert result_difference(first, second) is None
    (expected,) = differences(*({key: one[key] for key in NEAR} for one in (first, second)))
    assert tolerated_difference(first, second) == expected


@pytest.mark.parametrize("change", TOLERATED)
@pytest.mark.parametrize("pair", ONE_CPU)
def test_results_of_one_cpu_or_of_gpus_must_be_the_same(pair: tuple, change: dict) -> None:
    first, second = pair[0], {**pair[1], **change}
    assert result_difference(first, second) is not None
    assert tolerated_difference(first, second) is None


@pytest.mark.parametrize(("change", "key"), REFUSED)
@pytest.mark.parametrize("pair", TWO_CPUS)
def test_results_of_two_cpus_may_not_differ_more(pair: tuple, change: dict, key: str) -> None:
    assert result_difference(pair[0], {**pair[1], **change}).key == key


def test_counts_and_files_that_no_training_makes_are_the_same_on_every_cpu() -> None:
    """Weights follow from the numbers; a tokenizer, a split and a count of bytes do not."""
    files = {"weights": {"files": {"adapter/a.safetensors": "00", "tokenizer.json": "11"}}}
    trained = {"weights": {"files": {"adapter/a.safetensors": "99", "tokenizer.json": "11"}}}
    other = {"weights": {"files": {"adapter/a.safetensors": "00", "tokenizer.json": "22"}}}
    first = on("one", **files)
    assert result_difference(first, on("two", **trained)) is None
    assert result_difference(first, on("two", **other)).key == "weights.files.tokenizer.json"
    assert result_difference(on("one", peak_bytes=1000000), on("two", peak_bytes=1000001))


def test_a_refusal_says_by_how_much_two_cpus_differ() -> None:
    first, second = TWO_CPUS[0]
    said = " (a relative difference of 0.2, allowed between two CPUs: 0.001)"
    assert amount(first, second, Difference("metrics.a_fraction", 0.5, 0.4)) == said
    assert amount(first, second, Difference("status", "ok", "diverged")) == ""
    assert amount(*ONE_CPU[0], Difference("metrics.a_fraction", 0.5, 0.4)) == ""


def test_the_machine_of_a_result_has_its_kernels() -> None:
    assert machine(on("EPYC", "AVX512")) == "cpu, EPYC AVX512"
