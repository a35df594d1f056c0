"""The largest batch that `fits` predicts, on a GPU whose allocator is limited to that memory."""

import torch

from helpers.profiling import ledger_request
from helpers.real_gpu import on_gpu
from rankwise.core.units import CUDA_CONTEXT_BYTES, GIB
from rankwise.measure.memory.fits import fits
from rankwise.measure.memory.ledger import ledger

pytestmark = on_gpu


def test_the_boundary_on_a_gpu_is_the_predicted_one() -> None:
    """With the allocator limited to what `fits` leaves it, 5 % below the boundary a step fits."""
    request = ledger_request(
        "distilbert", "full", "fits", memory_gib=[6], lengths_tokens=[128], device="cuda"
    )
    batch_size = fits(request)["rows"][0]["largest_batch_size"]
    room = 6 * GIB - CUDA_CONTEXT_BYTES
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.mem_get_info()[1])
    try:
        for share, should_fit in ((0.95, True), (1.05, False)):
            sizes = {"batch_size": round(share * batch_size), "sequence_length_tokens": 128}
            shapes = {**request["shapes"], **sizes}
            result = ledger(
                {**request, "shapes": shapes, "measured": True, "measurement": "ledger"}
            )
            assert (result.get("status", "ok") == "ok") == should_fit
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
