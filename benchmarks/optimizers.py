"""Compare our optimizers with others' in one run, and write optimizers.md.

    python benchmarks/optimizers.py [--device cuda]

Measured are a refresh of the bases, a step, and the bytes of gradients that are alive at once.
Times are medians of interleaved repeats, so that other load on the machine affects both sides
alike. Only the ratios mean anything, and nothing asserts them. Needs galore-torch (in
envs/dev.lock).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn

from rankwise.optim import AdamW, ProjectedAdam, ProjFactor
from rankwise.optim.parts.projectors import rsvd, svd

ROOT = Path(__file__).resolve().parents[1]
RANK = 16
# Weights of DistilBERT's six blocks: four of attention, two of the feed-forward layer.
SHAPES = [(768, 768)] * 24 + [(3072, 768)] * 6 + [(768, 3072)] * 6

Row = tuple[str, float, float]  # what is compared, our number, the other's


def medians(device: str, repeats: int, **calls: Callable[[], object]) -> dict[str, float]:
    """Return the median seconds of each call; the calls take turns, and the first turn warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn > 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def matrices(device: str, shapes: list[tuple[int, int]] = SHAPES) -> list[Tensor]:
    """Return random matrices of these shapes, always the same."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(device) for shape in shapes]


def parameters(device: str, shapes: list[tuple[int, int]]) -> list[nn.Parameter]:
    """Return parameters of these shapes, with gradients."""
    params = [nn.Parameter(weight) for weight in matrices(device, shapes)]
    for param, grad in zip(params, matrices(device, shapes), strict=True):
        param.grad = grad
    return params


def refresh(device: str) -> list[Row]:
    """Time new bases by rsvd and by full SVDs, of one matrix and of all of DistilBERT's blocks."""
    one = refresh_row(device, "one 768 x 768", SHAPES[:1], repeats=9)
    blocks = refresh_row(device, "DistilBERT's blocks", SHAPES, repeats=3)
    return [one, blocks]


def refresh_row(device: str, what: str, shapes: list[tuple[int, int]], repeats: int) -> Row:
    """Time new bases of matrices of these shapes."""
    by_shape: dict[tuple[int, int], list[Tensor]] = {}
    for shape, grad in zip(shapes, matrices(device, shapes), strict=True):
        by_shape.setdefault(shape, []).append(grad)

    def all_rsvd() -> None:
        for grads in by_shape.values():
            rsvd(grads, RANK, oversample=4, power_iterations=1)

    def all_svd() -> None:
        for (rows, columns), grads in by_shape.items():
            wide = grads if rows <= columns else [grad.mT for grad in grads]
            svd(wide, RANK)

    times = medians(device, repeats, rsvd=all_rsvd, svd=all_svd)
    return f"refresh at rank {RANK} by rsvd / by full SVDs, {what}", times["rsvd"], times["svd"]


def step(device: str, shapes: list[tuple[int, int]] = SHAPES) -> list[Row]:
    """Time a step between refreshes: ours, galore-torch's, and torch's AdamW."""
    from galore_torch import GaLoreAdamW  # noqa: PLC0415 - a test dependency

    never = 10_000  # steps to the next refresh
    theirs = {"rank": RANK, "update_proj_gap": never, "scale": 0.25, "proj_type": "std"}
    galore = GaLoreAdamW(
        [{"params": parameters(device, shapes), **theirs}], lr=1e-5, weight_decay=0.0
    )
    same = {"eps": 1e-6, "convention": "transformers"}
    ours = ProjectedAdam(
        parameters(device, shapes), lr=1e-5, rank=RANK, interval_steps=never, **same
    )
    adamw = AdamW(parameters(device, shapes), lr=1e-5)
    times = medians(device, 15, ours=ours.step, galore=galore.step, adamw=adamw.step)
    against_galore = f"step of ProjectedAdam / of galore-torch's GaLoreAdamW, rank {RANK}"
    against_adamw = f"step of ProjectedAdam, rank {RANK} / of torch's AdamW"
    return [
        (against_galore, times["ours"], times["galore"]),
        (against_adamw, times["ours"], times["adamw"]),
    ]


def gradients(device: str) -> list[Row]:
    """Measure the bytes of full gradients alive at once in a backward pass."""
    what = "bytes of full gradients alive at once, ProjFactor on DistilBERT: released / not"
    return [(what, peak_gradients(device, release=True), peak_gradients(device, release=False))]


def peak_gradients(device: str, *, release: bool) -> int:
    """Return the most bytes of full gradients alive at once in one backward pass."""
    config = transformers.DistilBertConfig(n_layers=6, dim=768, hidden_dim=3072, n_heads=12)
    torch.manual_seed(0)
    model = transformers.DistilBertForSequenceClassification(config).to(device)
    alive_bytes: list[int] = []

    def count(_: Tensor) -> None:
        grads = [param.grad for param in model.parameters() if param.grad is not None]
        alive_bytes.append(sum(grad.numel() * grad.element_size() for grad in grads))

    # Hooks run in the order of registration: these count before the optimizer's hooks free.
    for param in model.parameters():
        param.register_post_accumulate_grad_hook(count)
    ProjFactor(model.parameters(), rank=4, release=release)
    tokens = torch.zeros(1, 8, dtype=torch.long, device=device)
    label = torch.zeros(1, dtype=torch.long, device=device)
    model(input_ids=tokens, labels=label).loss.backward()
    return max(alive_bytes)


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    device = parser.parse_args().device
    rows = [*refresh(device), *step(device), *gradients(device)]
    lines = ["| ours / other | ours | other | ratio |", "| --- | ---: | ---: | ---: |"]
    for what, ours, other in rows:
        lines.append(f"| {what} | {ours:,.4g} | {other:,.4g} | {ours / other:.3f} |")
    machine = f"CPU, {torch.get_num_threads()} threads"
    if device == "cuda":
        machine = torch.cuda.get_device_name()
    lines += ["", f"Seconds (medians) or bytes. {machine}, torch {torch.__version__}."]
    text = "\n".join(lines) + "\n"
    name = "optimizers.md" if device == "cpu" else "optimizers_cuda.md"
    (ROOT / "benchmarks" / name).write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
