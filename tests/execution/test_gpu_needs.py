"""What a job takes of the GPUs."""

import pytest

from rankwise.execution.gpu_needs import gpu_need
from rankwise.execution.gpus import GIB

PEAK = {"peak_bytes": GIB}


@pytest.mark.parametrize(
    ("measurement", "peak_gib", "share_gib"),
    [
        ("train", 1, 1.94),  # 1.1 GiB + 0.25 GiB + 600 MiB = 1.936 GiB
        ("trial", 10, 11.84),  # 11 GiB + 0.25 GiB + 600 MiB = 11.836 GiB
    ],
)
def test_a_training_run_shares_its_predicted_part(
    measurement: str, peak_gib: int, share_gib: float
) -> None:
    predicted = {"peak_bytes": peak_gib * GIB}
    assert gpu_need({"share": True}, measurement, True, predicted, True) == (0, share_gib)


@pytest.mark.parametrize(
    ("share", "measurement", "predicted", "local"),
    [
        (True, "train", {}, True),  # not predicted
        (False, "train", PEAK, True),  # the study does not share
        (True, "train", PEAK, False),  # on a cluster
        (True, "ledger", PEAK, True),  # a measurement
        (True, "forward", PEAK, True),
        (True, "throughput", PEAK, True),
    ],
)
def test_other_jobs_take_a_whole_gpu(share, measurement, predicted, local) -> None:
    assert gpu_need({"share": share}, measurement, True, predicted, local) == (1, 0)


def test_a_job_on_the_cpu_takes_none() -> None:
    assert gpu_need({"share": True}, "train", False, PEAK, True) == (0, 0)
