"""What a prediction of a training run depends on. Its numbers: test_dataset_lengths.py."""

from helpers.predicting import LORA, plan_of
from rankwise.study.grids import Cell

FULL = Cell("tiny", "generated_reviews", "full", 0)


def test_one_prediction_serves_all_seeds() -> None:
    assert plan_of().cells("predict") == [FULL, LORA]


def test_settings_that_shapes_do_not_depend_on_need_no_new_prediction() -> None:
    slower = plan_of(scheduler="linear", warmup_fraction=0.5, max_gradient_norm=None)
    assert slower.request("predict", LORA) == plan_of().request("predict", LORA)
    run = LORA._replace(seed=0)
    assert slower.request("train", run) != plan_of().request("train", run)
