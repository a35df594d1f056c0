"""The memory ledger of a training step: every byte by kind and phase, predicted from shapes and measured.

The prediction runs the step on the meta device, with the kernels of the device asked for; nothing is allocated. Its parts add
up to its peak. The measurement is independent of it: on a CPU the peak that torch's allocator reports, workspace inside of
kernels included, and the same storages tracked on real tensors; on CUDA the allocator's own peaks, what it reserved, and what
the device says is in use. `residual_bytes` is the measured peak less the predicted one (on CUDA with
the allocator's rounding); above LIMIT of the peak the result says so.

Not predicted: workspace inside of kernels, cuBLAS's (a few MiB a handle) and the CUDA context. On processors with instructions
for bf16, oneDNN's products in bf16 take some: where a CPU's peak is off by more than LIMIT, it is measured again without
oneDNN, and `workspace_bytes` is by how much that is lower, and no part of the residual.
"""

import contextlib
import importlib

import torch

from rankwise.core.errors import Unsupported
from rankwise.measure.memory import account, peaks, phases
from rankwise.measure.memory.kernels import kernels
from rankwise.measure.memory.leaf_outputs import leaf_outputs_bytes
from rankwise.measure.memory.tracker import Tracker, state_of

LIMIT = 0.02


def ledger(request: dict) -> dict:
    """The predicted ledger, and the measured peaks if the request asks for them."""
    try:
        tracker, state = track(request, "meta")
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    metrics = {**account.ledger(tracker), **account.allocated(tracker, request["device"])}
    if (
        request["device"] == "cuda"
    ):  # training builds and stores the model elsewhere and moves it there
        metrics = {
            name: value
            for name, value in metrics.items()
            if name.removesuffix("_peak_bytes") not in phases.BUILDING
        }
    metrics["leaf_outputs_bytes"] = leaf_outputs_bytes(
        request
    )  # what published system A calls activations
    shapes = {key: request["shapes"][key] for key in ("batch_size", "sequence_length_tokens")}
    found = {
        "metrics": {**shapes, **metrics},
        "timeline": account.timeline(tracker),
        "state": state,
    }
    return _measured(request, found) if request["measured"] else found


def _measured(request: dict, found: dict) -> dict:
    """`found` with the measured peaks beside the predicted ones; out of memory is a result."""
    metrics, device = found["metrics"], request["device"]
    try:
        columns = {"cpu": _measure_cpu, "cuda": peaks.cuda}[device](request)
    except torch.cuda.OutOfMemoryError as error:
        return {
            **found,
            "status": "out_of_memory",
            "reason": str(error).splitlines()[0],
            "device": device,
        }
    highest = _highest(columns)
    residual = highest - metrics.get("peak_allocated_bytes", metrics["peak_bytes"])
    workspace = {}
    if device == "cpu" and abs(residual) > LIMIT * highest:
        with torch.backends.mkldnn.flags(enabled=False):
            workspace = {"workspace_bytes": highest - _highest(peaks.cpu(request))}
    residual -= workspace.get("workspace_bytes", 0)
    share = residual / highest
    closing = {
        "measured_peak_bytes": highest,
        **workspace,
        "residual_bytes": residual,
        "residual_fraction": share,
    }
    warning = (
        {"reason": f"residual {100 * share:.1f} % of the peak, above {100 * LIMIT:.0f} %"}
        if abs(share) > LIMIT
        else {}
    )
    return {**found, **warning, "metrics": {**metrics, **columns, **closing}, "device": device}


def _highest(columns: dict[str, int]) -> int:
    """The highest measured peak of a training step's phases."""
    return max(
        columns[key] for name in phases.STEPS if (key := f"measured_{name}_peak_bytes") in columns
    )


def _measure_cpu(request: dict) -> dict[str, int]:
    return {
        **peaks.cpu(request),
        "tracked_peak_bytes": account.ledger(track(request, "cpu")[0])["peak_bytes"],
    }


def track(request: dict, device: str) -> tuple[Tracker, list[dict]]:
    """The log of every storage, and the optimizer's state by tensor and dtype.

    Raises:
        Unsupported: the method cannot do this model, with the reason.
    """
    with contextlib.suppress(
        ImportError
    ):  # peft loads it when it adapts a model, and its tables would count as the model's
        importlib.import_module("bitsandbytes")
    tracker = Prediction(request["device"]) if device == "meta" else Tracker()
    torch.manual_seed(0)
    with kernels(request["device"] if device == "meta" else None), tracker:
        one = phases.run(request, device, tracker)
    return tracker, _state(one)


class Prediction(Tracker):
    """A tracker of what a device would do that is not here."""

    def __init__(self, device: str):
        super().__init__()
        self.device = device

    def built(self, one: phases.Step) -> None:
        """On CUDA torch's optimizers step all tensors at once, which takes temporary memory of their size."""
        super().built(one)
        for group in one.optimizer.param_groups if one.optimizer and self.device == "cuda" else ():
            if group.get("foreach", True) is None:
                group["foreach"] = True


def _state(one: phases.Step) -> list[dict]:
    sizes: dict[tuple[str, str], int] = {}
    for name, value in state_of(one):
        key = (name, str(value.dtype).removeprefix("torch."))
        sizes[key] = sizes.get(key, 0) + value.numel() * value.element_size()
    return [
        {"tensor": name, "dtype": dtype, "state_bytes": size}
        for (name, dtype), size in sizes.items()
    ]
