"""`rankwise.predict`: a ledger in three lines."""

import pytest

import rankwise
from helpers.profiling import ledger_request
from rankwise.core.errors import ConfigError, Unsupported
from rankwise.measure.memory.ledger import ledger


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_parts_add_up_and_the_state_is_adams(device: str) -> None:
    """LoRA of rank 8 on q and v, and a new head: 2 * 4 bytes a number, and 4 bytes a step count on the CPU."""
    found = rankwise.predict("distilbert", "lora", rank=8, batch_size=4, length=32, device=device)
    assert sum(found.parts.values()) == found.peak_bytes
    numbers = 6 * 2 * 2 * 8 * 768 + (768 * 768 + 768) + (768 * 2 + 2)
    assert found.parts["optimizer_state"] == 8 * numbers
    assert sum(row["state_bytes"] for row in found.state) == 8 * numbers
    assert (found.batch_size, found.sequence_length_tokens) == (4, 32)


def test_it_is_the_ledger_of_a_study() -> None:
    request = ledger_request("tiny", "galore", batch_size=4)
    expected = ledger(request)["metrics"]
    shapes = request["shapes"]
    found = rankwise.predict(
        "tiny", "galore", rank=request["cell"]["rank"], dataset=request["cell"]["dataset"], batch_size=4,
        length=shapes["sequence_length_tokens"], device=request["device"],
    )  # fmt: skip
    assert found.peak_bytes == expected["peak_bytes"]
    assert abs(found.peak_bytes - expected["measured_peak_bytes"]) <= 1024


def test_an_override_is_that_of_a_study() -> None:
    whole, half = (
        rankwise.predict("distilbert", "lora", length=16, override=override)
        for override in (None, {"weights": "bf16"})
    )
    assert half.parts["weights"] < 0.6 * whole.parts["weights"]


@pytest.mark.parametrize(("arguments", "expected"), [
    ({"model": "distilbrt"}, "rankwise.predict: model: got 'distilbrt'"),
    ({"method": "lroa"}, "rankwise.predict: method: got 'lroa'"),
    ({"dataset": "imbd"}, "rankwise.predict: dataset: got 'imbd'"),
    ({"device": "gpu"}, "rankwise.predict: profile.0.device: got 'gpu', allowed: cpu, cuda"),
    ({"rank": 0}, "got 0"),
])  # fmt: skip
def test_a_wrong_value_is_one_sentence(arguments: dict, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rankwise.predict(**{"model": "distilbert", "method": "lora", **arguments})
    assert expected in str(caught.value)


def test_what_a_method_cannot_do_is_its_sentence() -> None:
    with pytest.raises(Unsupported, match="Conv1D"):
        rankwise.predict("gpt2", "oft", override={"options": {"targets": ["attention"]}})


def test_a_causal_language_model_is_predicted_at_its_own_task() -> None:
    """Its logits are those of its vocabulary; the ledger says which task it is of."""
    usual = rankwise.predict("tiny_decoder", "lora", batch_size=2, length=16, device="cpu")
    classifier = rankwise.predict(
        "tiny_decoder", "lora", batch_size=2, length=16, device="cpu", dataset="generated_reviews"
    )
    assert (usual.task, classifier.task) == ("language_modelling", "classification")
    assert "language_modelling" in str(usual)
