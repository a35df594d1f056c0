"""A number that was typed into a result is refused, because its own scores give another one."""

from pathlib import Path

import pytest

from helpers.planted import Planned, request, write
from helpers.stored import change
from rankwise.analysis import evaluations, tidy
from rankwise.core import result
from rankwise.core.store import StoreError

SCORES = {
    "correct_fraction": [1.0, 1.0, 0.0, 1.0],
    "loss_nats": [0.5, 0.25, 2.0, 0.25],
    "predictions": [1.0, 1.0, 1.0, 1.0],
    "label": [0.0, 0.0, 1.0, 1.0],
    "predicted": [0.0, 0.0, 0.0, 1.0],
}
# By hand. F1 of class 0 is 2 * 2 / (2 + 3) and of class 1 2 * 1 / (2 + 1); their mean is 11 / 15.
TRUE = {"accuracy_fraction": 0.75, "eval_loss_nats": 0.75, "macro_f1_fraction": 11 / 15}


@pytest.fixture
def run(tmp_path: Path) -> Planned:
    metrics = {**TRUE, "trainable_parameters": 10}
    return write(tmp_path, request("lora", 8, 0), metrics=metrics, examples=SCORES)


def test_numbers_that_follow_from_the_scores_are_gathered(run: Planned) -> None:
    (row,) = tidy.collect([run]).to_dict("records")
    assert {name: row[name] for name in TRUE} == pytest.approx(TRUE)


@pytest.mark.parametrize("name", TRUE)
def test_a_number_typed_by_hand_is_refused_with_both_values(name: str, run: Planned) -> None:
    change(run.path, metrics={**TRUE, name: 0.99})
    with pytest.raises(StoreError) as refused:
        tidy.collect([run])
    start, end = str(refused.value).split("allowed: ")
    assert start == f"{run.path}: metrics.{name}: got 0.99, "
    assert float(end.partition(",")[0]) == pytest.approx(TRUE[name])


def test_a_changed_score_is_refused(run: Planned) -> None:
    change(run.path, examples={**SCORES, "correct_fraction": [1.0, 1.0, 1.0, 1.0]})
    with pytest.raises(StoreError, match=r"accuracy_fraction: got 0\.75, allowed: 1\.0,"):
        tidy.examples([run])


@pytest.mark.parametrize("typed", [{"score_fraction": 0.5}, {"samples": 4}])
def test_a_score_of_an_evaluation_is_refused(typed: dict, tmp_path: Path) -> None:
    asked = request("lora", 8, 0)
    asked = {**asked, "cell": {**asked["cell"], "evaluation": "boolq"}, "evaluation": {}}
    row = {"evaluation": "boolq", "metric": "accuracy_fraction", "samples": 3}
    row |= {"score_fraction": 2 / 3}
    scores = {"document": ["a", "b", "c"], "accuracy_fraction": [1.0, 0.0, 1.0]}
    run = write(tmp_path, asked, rows=[row], examples=scores)
    assert len(evaluations.collect([run], {"boolq": "accuracy_fraction"}, {})) == 1
    change(run.path, rows=[{**row, **typed}])
    (key,) = typed
    with pytest.raises(
        StoreError, match=rf"train\.json: rows\.0\.{key}: got {typed[key]}, allowed:"
    ):
        evaluations.collect([run], {"boolq": "accuracy_fraction"}, {})


def test_every_byte_of_a_result_is_sealed(run: Planned) -> None:
    """No flipped bit, and no cut, gives a result that is read."""
    data = run.path.read_bytes()
    assert result.read(run.path)["metrics"]["accuracy_fraction"] == 0.75
    for place in range(0, len(data), 7):
        run.path.write_bytes(
            data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :]
        )
        with pytest.raises(ValueError, match=rf"{run.path}: it|{run.path}: its content"):
            result.read(run.path)
        run.path.write_bytes(data[:place])
        with pytest.raises(ValueError, match=r"train\.json: it"):
            result.read(run.path)
