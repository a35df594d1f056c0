"""Our optimizers beside others', in one run: a refresh, a step, the gradients that are there at once. Writes optimizers.md.

    python benchmarks/optimizers.py [--device cuda]

Needs galore-torch (in envs/dev.lock). Medians of interleaved repeats, so that what else the machine does hits both alike;
only the ratios mean anything, and nothing asserts them.
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


def medians(device: str, repeats: int, **calls: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each call, taken in turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            if number:  # the first one warms up
                found[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def matrices(device: str, shapes: list[tuple[int, int]] = SHAPES) -> list[Tensor]:
    """Random matrices of these shapes."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(device) for shape in shapes]


def refresh(device: str) -> list[tuple[str, float, float]]:
    """New bases by rsvd against full SVDs: for one attention matrix, and for all of DistilBERT's blocks."""
    return [
        _refresh(device, "one 768 x 768", SHAPES[:1], 9),
        _refresh(device, "DistilBERT's blocks", SHAPES, 3),
    ]


def _refresh(
    device: str, what: str, shapes: list[tuple[int, int]], repeats: int
) -> tuple[str, float, float]:
    grads = matrices(device, shapes)
    by_shape = [[g for g in grads if g.shape == shape] for shape in dict.fromkeys(shapes)]
    short = [[g if g.shape[0] <= g.shape[1] else g.mT for g in alike] for alike in by_shape]
    times = medians(
        device,
        repeats,
        rsvd=lambda: [rsvd(alike, RANK, 4, 1) for alike in by_shape],
        svd=lambda: [svd(alike, RANK) for alike in short],
    )
    return f"refresh at rank {RANK} by rsvd / by full SVDs, {what}", times["rsvd"], times["svd"]


def step(device: str) -> list[tuple[str, float, float]]:
    """A step between refreshes, against galore-torch's and torch's AdamW."""
    from galore_torch import GaLoreAdamW  # noqa: PLC0415 - a test dependency

    def params() -> list[nn.Parameter]:
        weights = [nn.Parameter(weight) for weight in matrices(device)]
        for weight, grad in zip(weights, matrices(device), strict=True):
            weight.grad = grad
        return weights

    theirs = {"rank": RANK, "update_proj_gap": 10_000, "scale": 0.25, "proj_type": "std"}
    galore = GaLoreAdamW([{"params": params(), **theirs}], lr=1e-5, weight_decay=0.0)
    ours = ProjectedAdam(
        params(), lr=1e-5, rank=RANK, interval_steps=10_000, eps=1e-6, convention="transformers"
    )
    times = medians(
        device, 15, ours=ours.step, galore=galore.step, adamw=AdamW(params(), lr=1e-5).step
    )
    return [
        (
            f"step of ProjectedAdam / of galore-torch's GaLoreAdamW, rank {RANK}",
            times["ours"],
            times["galore"],
        ),
        (f"step of ProjectedAdam, rank {RANK} / of torch's AdamW", times["ours"], times["adamw"]),
    ]


def gradients(device: str) -> list[tuple[str, int, int]]:
    """Bytes of full gradients that are alive at once in a backward pass, with and without release."""

    def peak(release: bool) -> int:
        config = transformers.DistilBertConfig(n_layers=6, dim=768, hidden_dim=3072, n_heads=12)
        torch.manual_seed(0)
        model = transformers.DistilBertForSequenceClassification(config).to(device)
        highest = 0

        def look(_: Tensor) -> None:
            nonlocal highest
            alive = (
                p.grad.numel() * p.grad.element_size()
                for p in model.parameters()
                if p.grad is not None
            )
            highest = max(highest, sum(alive))

        for param in model.parameters():
            param.register_post_accumulate_grad_hook(
                look
            )  # before the optimizer's, so it sees what that frees
        ProjFactor(model.parameters(), rank=4, release=release)
        model(
            input_ids=torch.zeros(1, 8, dtype=torch.long, device=device),
            labels=torch.zeros(1, dtype=torch.long, device=device),
        ).loss.backward()
        return highest

    return [
        (
            "bytes of full gradients alive at once, ProjFactor on DistilBERT: released / not",
            peak(True),
            peak(False),
        )
    ]


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    device = parser.parse_args().device
    rows = [*refresh(device), *step(device), *gradients(device)]
    text = "| ours / other | ours | other | ratio |\n| --- | ---: | ---: | ---: |\n"
    text += "".join(f"| {what} | {a:,.4g} | {b:,.4g} | {a / b:.3f} |\n" for what, a, b in rows)
    where = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    text += f"\nSeconds (medians) or bytes. {where}, torch {torch.__version__}.\n"
    name = "optimizers.md" if device == "cpu" else "optimizers_cuda.md"
    (ROOT / "benchmarks" / name).write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
