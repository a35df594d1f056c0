"""DistilBERT on a batch of 32 x 128 tokens: its FLOPs in closed form, and as we count them."""

import functools

from helpers.profiling import profile_request
from rankwise.measure.flops.count import flops

BATCH, LENGTH, WIDTH, INNER, LAYERS, CLASSES = 32, 128, 768, 3072, 6, 2
TOKENS = BATCH * LENGTH
# Products of linear layers in one forward pass; the head sees one token a sequence.
DENSE = (
    2 * TOKENS * LAYERS * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER)
    + 2 * BATCH * (WIDTH * WIDTH + CLASSES * WIDTH)
)  # fmt: skip
# Products of attention in one forward pass: scores, and the weighted sum of values.
ATTENTION = LAYERS * 2 * 2 * BATCH * LENGTH * LENGTH * WIDTH
# Shapes of all matrices that a projected optimizer projects, embeddings and head included.
MATRICES = [
    (30522, WIDTH),
    (512, WIDTH),
    *[(WIDTH, WIDTH)] * (LAYERS * 4 + 1),
    *[(INNER, WIDTH), (WIDTH, INNER)] * LAYERS,
    (CLASSES, WIDTH),
]


@functools.cache
def distilbert_flops(method: str, rank: int = 4) -> dict:
    """Our metrics for DistilBERT; counted once, since several tests look at the same ones."""
    request = profile_request("flops", method, model="distilbert", dataset="sst2", rank=rank or 4)
    return flops({**request, "train_samples": None})["metrics"]
