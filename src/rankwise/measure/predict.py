"""What a training's job will need, from shapes: its peak memory and its FLOPs. So that a scheduler can be asked for neither
too little nor a whole card, and so that a plan can tell hours before there is hardware.

`peak_bytes` bounds training and evaluation: on CUDA what the caching allocator reserves, on a CPU live storages. Sequences fill
their length, so shorter texts need less; workspace inside of kernels, the CUDA context and autocast's copies are not in it.
"""

from rankwise.core.errors import Unsupported
from rankwise.measure.flops import count
from rankwise.measure.memory import account
from rankwise.measure.memory.ledger import track


def predict(request: dict) -> dict:
    """`peak_bytes`, `update_flops` and, where the size of the train split is known, `updates`."""
    try:
        peak, weights = _training(request)
        found = {"peak_bytes": max(peak, _evaluation(request)), "weights_bytes": weights}
        found |= {"update_flops": count.update_flops(request)}
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    return {"metrics": {**found, **({"updates": request["updates"]} if request["updates"] else {})}}


def _training(request: dict) -> tuple[int, int]:
    """Bytes at the peak, and those of weights in it."""
    tracker, _ = track(request, "meta")
    found = account.ledger(tracker)
    return account.allocated(tracker, request["device"]).get(
        "peak_reserved_bytes", found["peak_bytes"]
    ), found["weights_bytes"]


def _evaluation(request: dict) -> int:
    """Bytes at the peak of an evaluation, whose batches may be larger than those of training."""
    batch = {**request["shapes"], "batch_size": request["eval_batch_size"]}
    return account.ledger(track({**request, "shapes": batch}, "meta")[0])["evaluation_peak_bytes"]
