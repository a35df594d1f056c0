"""Predicted steps of a small Llama under loops and releases other than ours."""

import functools

from helpers.profiling import ledger_request
from rankwise.measure.memory.ledger import ledger

LLAMA = {"model": "stories260k", "dataset": "wikitext2", "batch_size": 2}
TOKENS = 32  # of each text


@functools.cache
def predicted(method: str = "lora", **settings: object) -> dict:
    """Metrics of a predicted step on a GPU, without adapters' dropout."""
    sizes = {**LLAMA, "sequence_length_tokens": TOKENS, "device": "cuda", "measured": False}
    override = {} if method == "full" else {method: {"options": {"dropout": 0.0}}}
    request = ledger_request(**{**sizes, "method": method, "override": override, **settings})
    return ledger(request)["metrics"]
