"""Random texts of a classification, always the same ones."""

from collections.abc import Callable
from types import SimpleNamespace

import torch

from rankwise.core import tasks

EXAMPLES = 512
TOKENIZER = SimpleNamespace(pad_token_id=0, eos_token_id=None)  # all that a batch asks of one


def examples(request: dict, tokens: int) -> list[dict]:
    """Token ids and a label of each text.

    Args:
        request: Of a training run.
        tokens: Of the longest text; the shortest has half as many.
    """
    generator = torch.Generator().manual_seed(0)
    vocabulary = request["model"]["architecture"]["vocab_size"]
    made = []
    for number in range(EXAMPLES):
        length = int(torch.randint(tokens // 2, tokens + 1, (1,), generator=generator))
        ids = torch.randint(vocabulary, (length,), generator=generator).tolist()
        made.append({"input_ids": ids, "labels": number % len(request["dataset"]["classes"])})
    return made


def collate(request: dict) -> Callable[[list[dict]], dict]:
    """What makes a batch of examples.

    Args:
        request: Of a training run.
    """
    module = tasks.load(request["dataset"]["task"])
    return module.Collate(TOKENIZER, request["cell"]["seed"])
