"""The memory ledger of a training step: every byte by kind and phase, predicted and measured.

The prediction runs the step on the meta device, with the kernels of the device asked for, so
nothing is allocated. Its parts add up to its peak.

The measurement is independent of it. On a CPU it is the peak that torch's allocator reports, with
workspace inside kernels, and the same storages tracked on real tensors. On CUDA it is the
allocator's own peaks, what it reserved, and what the GPU says is in use.

`residual_bytes` is the measured peak less the predicted one (on CUDA with the allocator's
rounding). If it is above LIMIT of the peak, the result says so.

cuBLAS's workspace on CUDA is a constant (workspace.py). Not predicted: workspace inside other
kernels, and the CUDA context. On a CPU, workspace is measured, as what an operator allocates and
frees before it returns (products in bf16, Fourier transforms). `workspace_bytes` is by how much it
raises the peak, and it is no part of the residual.
"""

import contextlib
import importlib

import torch
from torch._ops import OpOverload

from rankwise.core.errors import Unsupported
from rankwise.measure.memory import account, peaks, phases
from rankwise.measure.memory.kernels import kernels_of
from rankwise.measure.memory.leaf_outputs import leaf_outputs_bytes
from rankwise.measure.memory.tracker import Tracker, state_tensors
from rankwise.measure.meta_results import MetaResults
from rankwise.measure.step import Step
from rankwise.models import memory_errors, storage

LIMIT = 0.02
SVD = torch.ops.aten._linalg_svd.default
# Imported by name, so that profiles of one process, or of one length, do not depend on them.
PER_PROCESS = "rankwise.measure.memory.per_process"
DATASET_LENGTHS = "rankwise.measure.memory.dataset_lengths"


def ledger(request: dict) -> dict:
    """Predict the ledger, and measure the peaks as well if the request asks for it.

    Returns:
        A result with metrics, a timeline of bytes by kind and the optimizer's state by tensor; or
        status `unsupported` or `out_of_memory` with the reason.
    """
    try:
        if "lengths" in request:
            return importlib.import_module(DATASET_LENGTHS).ledger(request, _of_one_length)
        return _of_one_length(request)
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}


def _of_one_length(request: dict) -> dict:
    """The ledger of a request whose batches all have one length.

    Raises:
        Unsupported: The method cannot train this model; the message is the reason.
    """
    tracker, state = track(request, "meta")
    columns = account.peak_columns(tracker) | account.allocator_columns(tracker, request)
    if request["device"] == "cuda":
        columns = _without_building(columns)
    # What published system A calls activations.
    columns["leaf_outputs_bytes"] = leaf_outputs_bytes(request)

    shapes = {name: request["shapes"][name] for name in ("batch_size", "sequence_length_tokens")}
    result = {
        "metrics": {**shapes, **columns},
        "timeline": account.timeline(tracker),
        "state": state,
    }
    return _with_measurement(request, result) if request["measured"] else result


def _without_building(columns: dict) -> dict:
    """Leave out the peaks of building: training builds its model on the CPU and then moves it."""
    building = {f"{phase}_peak_bytes" for phase in phases.BUILDING}
    return {name: value for name, value in columns.items() if name not in building}


def _with_measurement(request: dict, result: dict) -> dict:
    """Put the measured peaks beside the predicted ones; out of memory is a result too."""
    device = request["device"]
    try:
        measured = {"cpu": _measure_cpu, "cuda": peaks.cuda}[device](request)
    except memory_errors.ERRORS as error:
        return {**result, **memory_errors.result(error), "device": device}
    closing = _closing(result["metrics"], measured)
    result = {**result, "metrics": {**result["metrics"], **measured, **closing}, "device": device}
    share = closing["residual_fraction"]
    if abs(share) > LIMIT:
        result["reason"] = f"residual {100 * share:.1f} % of the peak, above {100 * LIMIT:.0f} %"
    return result


def _closing(predicted: dict, measured: dict) -> dict[str, int | float]:
    """Compare the peaks of training: `measured_peak_bytes` and the residual."""
    highest = _training_peak(measured)
    expected = predicted.get("peak_allocated_bytes", predicted["peak_bytes"])
    residual = highest - measured.get("workspace_bytes", 0) - expected
    return {
        "measured_peak_bytes": highest,
        "residual_bytes": residual,
        "residual_fraction": residual / highest,
    }


def _training_peak(measured: dict[str, int]) -> int:
    """The highest measured peak of the phases of a training step."""
    names = [f"measured_{phase}_peak_bytes" for phase in phases.STEPS]
    return max(measured[name] for name in names if name in measured)


def _measure_cpu(request: dict) -> dict[str, int]:
    """Peaks of the CPU allocator, workspace, and the peak of the same storages on real tensors."""
    measured, tensors = peaks.cpu_and_tensors(request)
    tracker, _ = track(request, "cpu")
    return {
        **measured,
        "workspace_bytes": _training_peak(measured) - _training_peak(tensors),
        "tracked_peak_bytes": account.peak_columns(tracker)["peak_bytes"],
    }


def track(
    request: dict, device: str, *, evaluates: bool = True, results: MetaResults | None = None
) -> tuple[Tracker, list[dict]]:
    """Run all phases of a request under a tracker.

    Args:
        request: A profile's request.
        device: `meta` predicts what happens on the request's device; `cpu` and `cuda` run there.
        evaluates: Whether an evaluation follows the updates.
        results: Those of other predictions, which may serve this one, too.

    Returns:
        The log of every storage, and rows of the optimizer's state by tensor and dtype; with
        several `processes`, those of one of them.

    Raises:
        Unsupported: The method cannot train this model; the message is the reason.
    """
    # peft imports bitsandbytes when it adapts a model, and a quantized base imports its storage.
    # Tables of these would then be created within the tracked phases and count as the model's.
    with contextlib.suppress(ImportError):
        importlib.import_module("bitsandbytes")
        if request["method"]["weights"] not in storage.DTYPES:
            importlib.import_module(storage.QUANTIZED)
    if device == "meta":
        tracker, kernels_device = PredictingTracker(request["device"], results), request["device"]
    else:
        tracker, kernels_device = Tracker(), None
    observer = tracker
    if request.get("processes", 1) > 1:
        per_process = importlib.import_module(PER_PROCESS)
        observer = per_process.observer(request, tracker)
    torch.manual_seed(0)
    kernels = kernels_of(
        kernels_device,
        precision=request.get("precision", "fp32"),
        padded=request.get("padded", False),
    )
    with kernels, tracker:
        training_step = phases.run(request, device, observer, evaluates=evaluates)
    rows = _state_rows(training_step)
    if observer is tracker:
        return tracker, rows
    return per_process.log(request, observer), per_process.state_rows(request, rows, observer)


class PredictingTracker(Tracker):
    """A tracker on the meta device that predicts what happens on another device.

    Attributes:
        device: `cuda` or `cpu`.
    """

    def __init__(self, device: str, results: MetaResults | None = None):
        super().__init__()
        self.device = device
        self._results = results or MetaResults()
        self._is_built = False

    def run(self, func: OpOverload, args: tuple, kwargs: dict) -> object:
        """Run an operator, or answer from memory where the same shapes have come before."""
        results = self._results.of(func, args, kwargs)
        if func is SVD and (self.device == "cpu" or not self._is_built):
            # LAPACK returns V transposed by columns, cuSOLVER and the meta device by rows. So on a
            # CPU `V[:rank].contiguous()` is a copy, elsewhere a view that keeps all of V. Training
            # builds its model on the CPU.
            left, values, right = results
            return left, values, right.mT.contiguous().mT
        return results

    def built(self, training_step: Step) -> None:
        """Label as a tracker does, and let torch's optimizers step as they do on the device.

        On CUDA their default (`foreach=None`) is to step all tensors at once, which takes temporary
        memory of all their sizes; on the meta device it is one tensor after another.
        """
        super().built(training_step)
        self._is_built = True
        if self.device != "cuda" or training_step.optimizer is None:
            return
        for group in training_step.optimizer.param_groups:
            if "foreach" in group and group["foreach"] is None and not group.get("fused"):
                group["foreach"] = True


def _state_rows(training_step: Step) -> list[dict]:
    """Bytes of the optimizer's state by the name of the tensor and its dtype."""
    sizes: dict[tuple[str, str], int] = {}
    for name, value in state_tensors(training_step):
        key = (name, str(value.dtype).removeprefix("torch."))
        sizes[key] = sizes.get(key, 0) + value.numel() * value.element_size()
    return [
        {"tensor": name, "dtype": dtype, "state_bytes": size}
        for (name, dtype), size in sizes.items()
    ]
