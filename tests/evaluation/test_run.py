"""An evaluation from its request: the run's weights, the scores, the same result a second time."""

import json
from pathlib import Path

import pytest

from helpers import byte_decoders
from helpers.stored import store_result
from rankwise.core import provenance, result
from rankwise.evaluation import run as evaluation
from rankwise.evaluation.run import evaluate

CELL = {"model": "m", "dataset": "d", "method": "lora", "rank": 4, "seed": 0}


@pytest.fixture
def opened(monkeypatch) -> list[tuple]:
    """Which weights are opened; a small random decoder stands for them."""
    calls = []

    def load(result_file, base_folder):
        calls.append((result_file, base_folder))
        return byte_decoders.model(), byte_decoders.tokenizer()

    monkeypatch.setattr(evaluation.kept, "load", load)
    monkeypatch.setattr(evaluation, "model_folder", lambda request: Path("base"))
    return calls


@pytest.fixture
def request_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(**run_content) -> dict:
        training = {"measurement": "train", "cell": CELL}
        store_result(tmp_path, training, lambda _: run_content)
        digest = provenance.digest(training)
        rows = [{"instruction": f"Say {n}.", "answer": "a"} for n in range(3)]
        (tmp_path / "test.json").write_text(json.dumps(rows))
        test = {"path": "test.json", "sha256": provenance.file_sha256(tmp_path / "test.json")}
        entry = {
            "kind": "answer_pattern", "pattern": "a", "take": "first", "number": False, "beams": 1,
            "metric": "accuracy_fraction", "max_new_tokens": 6, "batch_size": 2,
            "files": {"folder": str(tmp_path), "form": "llm_adapters", "test": test},
        }  # fmt: skip
        return {
            "measurement": "evaluate",
            "cell": {**CELL, "evaluation": "mine"},
            "evaluation": entry,
            "run": {"result": f"runs/m/d/lora/r4/seed0/{digest}/train.json", "digest": digest},
            "device": "cpu",
            "cpu_threads": 1,
        }

    return make


def test_a_result_has_a_row_a_metric_and_the_scores_of_each_example(request_of, opened, tmp_path):
    request = request_of(metrics={})
    found = evaluate(request)
    (file, base) = opened[0]
    assert file == Path("results/store") / request["run"]["result"]
    assert base == Path("base")
    scores = found["examples"]["accuracy_fraction"]
    answers = [float("a" in text) for text in found["examples"]["generated"]]
    assert scores == answers
    assert found["rows"] == [
        {"evaluation": "mine", "metric": "accuracy_fraction", "score_fraction": sum(scores) / 3, "samples": 3}
    ]  # fmt: skip
    assert len(set(found["examples"]["document"])) == 3
    result.write(tmp_path / "again.json", request, found, {})  # every name has its unit


def test_a_second_evaluation_gives_the_same_bytes(request_of, opened):
    request = request_of(metrics={})
    first, second = ({**evaluate(request), "cost": None} for _ in range(2))
    assert json.dumps(first) == json.dumps(second)


def test_a_run_that_failed_is_not_loaded(request_of, opened):
    request = request_of(status="diverged", reason="the loss was not finite")
    assert evaluate(request) == {
        "status": "diverged",
        "reason": "its training run: the loss was not finite",
    }
    assert opened == []


def test_a_run_that_is_not_in_the_store(request_of):
    request = request_of(metrics={})
    request["run"]["result"] = "runs/other/train.json"
    with pytest.raises(FileNotFoundError, match="run snakemake again"):
        evaluate(request)


def test_a_metric_that_the_task_does_not_have(request_of, opened):
    request = request_of(metrics={})
    request["evaluation"]["metric"] = "exact_match_fraction"
    with pytest.raises(
        ValueError, match=r"mine.metric: got exact_match_fraction, allowed: accuracy"
    ):
        evaluate(request)
