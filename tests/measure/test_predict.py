"""What a training run needs, predicted before it runs: its peak memory and its FLOPs."""

import copy

import pytest

from helpers.predicting import LORA, plan_of
from rankwise.measure.flops.count import flops
from rankwise.measure.memory.ledger import ledger
from rankwise.measure.predict import predict
from rankwise.study.grids import Cell

FULL = Cell("tiny", "generated_reviews", "full", 0)


@pytest.mark.parametrize(
    "cell", [pytest.param(FULL, marks=pytest.mark.slow), LORA], ids=["full", "lora"]
)
def test_a_prediction_is_the_ledgers_peak_and_the_flops_of_an_update(cell: Cell) -> None:
    plan = plan_of()
    predicted = predict(plan.request("predict", cell))["metrics"]
    measured = ledger(plan.request("ledger", cell))["metrics"]
    counted = flops(plan.request("flops", cell))["metrics"]
    assert predicted["peak_bytes"] == measured["peak_bytes"]
    assert abs(predicted["peak_bytes"] / measured["measured_peak_bytes"] - 1) < 0.02
    assert predicted["update_flops"] == counted["update_flops"]
    # 4 epochs of 2,400 samples less 400 for selection, 64 in each update.
    assert predicted["updates"] == 4 * -(-(2400 - 400) // 64)


def test_a_sample_of_train_has_fewer_updates() -> None:
    plan = plan_of()
    plan.library = copy.deepcopy(plan.library)
    plan.library["datasets"]["generated_reviews"]["train_rows"] = 1000
    # 4 epochs of 1,000 samples less 400 for selection, 64 in each update.
    assert plan.request("predict", FULL)["updates"] == 4 * 10


def test_one_prediction_serves_all_seeds() -> None:
    assert plan_of().cells("predict") == [FULL, LORA]


def test_large_evaluation_batches_count() -> None:
    small, large = (
        predict(plan.request("predict", LORA))["metrics"]["peak_bytes"]
        for plan in (plan_of(), plan_of(eval_batch_size=2000))
    )
    assert large > 5 * small


def test_settings_that_shapes_do_not_depend_on_need_no_new_prediction() -> None:
    slower = plan_of(scheduler="linear", warmup_fraction=0.5, max_gradient_norm=None)
    assert slower.request("predict", LORA) == plan_of().request("predict", LORA)
    run = LORA._replace(seed=0)
    assert slower.request("train", run) != plan_of().request("train", run)
