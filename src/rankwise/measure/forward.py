"""Latency and FLOPs of a forward pass without gradients, by batch: warmed up, synchronised, the median of repeats."""

import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from rankwise import models, storage
from rankwise.measure.batch import meta_batch
from rankwise.method import Unsupported, adapt

WARMUP, REPEATS = 3, 11


def forward(request: dict) -> dict:
    """Median and quartiles of the latency; the model has random weights, which change neither time nor FLOPs."""
    torch.set_num_threads(request["cpu_threads"])
    torch.manual_seed(0)
    shapes = request["shapes"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = models.from_shapes(request["model"], shapes["task"], shapes["classes"], device)
    try:
        with torch.device(device):
            names = models.names(request["model"], shapes["task"])
            model = adapt(request["method"], storage.store(model, request["method"]["weights"], names), names)[1].eval()
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    ids = torch.randint(model.config.vocab_size, (shapes["batch_size"], shapes["sequence_length_tokens"]), device=device)
    return {"metrics": {"forward_flops": _flops(request, shapes)}, "cost": _latency(model, ids), "device": device}


def _flops(request: dict, shapes: dict) -> int:
    with torch.device("meta"):
        twin = models.from_shapes(request["model"], shapes["task"], shapes["classes"], "meta", attention="eager")
        twin = adapt(request["method"], twin, models.names(request["model"], shapes["task"]))[1].eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            twin(**meta_batch(shapes))
    return counter.get_total_flops()


@torch.no_grad()
def _latency(model: torch.nn.Module, ids: torch.Tensor) -> dict[str, float]:
    seconds = []
    for repeat in range(WARMUP + REPEATS):
        _synchronise()
        start = time.perf_counter()
        model(input_ids=ids)
        _synchronise()
        if repeat >= WARMUP:
            seconds.append(time.perf_counter() - start)
    low, median, high = statistics.quantiles(seconds, n=4)
    spread = {"forward_latency_q1_s": low, "forward_latency_s": median, "forward_latency_q3_s": high}
    return {**spread, "throughput_samples_per_s": len(ids) / median, "repeats": REPEATS}


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
