"""A process without Rankwise that opens kept weights by peft and transformers, and scores examples.

Reads a JSON list of cases from standard input: `folder` (adapter/ or merged/) and `base` (a model's
folder), or the `code` that makes `model` and `tokenizer`; `classes` (0 for a language model) and
`rows` of token ids and labels; `batch_size`, where it is not one example at a time, and `pad`, the
token that fills a batch. Prints, for each case, the loss of each example.
"""

import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)


def opened(case: dict) -> torch.nn.Module:
    if "code" in case:
        names: dict = {}
        exec(case["code"], names)
        assert names["tokenizer"]("a text")["input_ids"]
        return names["model"].eval()
    classes, folder = case["classes"], Path(case["folder"])
    auto = AutoModelForSequenceClassification if classes else AutoModelForCausalLM
    AutoTokenizer.from_pretrained(folder)
    if folder.name == "merged":
        return auto.from_pretrained(folder, dtype=torch.float32).eval()
    labels = {"num_labels": classes} if classes else {}
    base = auto.from_pretrained(case["base"], **labels)
    return PeftModel.from_pretrained(base, folder).eval()


@torch.no_grad()
def losses(model: torch.nn.Module, case: dict) -> list[float]:
    rows, size = case["rows"], case.get("batch_size", 1)
    found = []
    for start in range(0, len(rows), size):
        found += losses_of_batch(model, rows[start : start + size], case)
    return found


def losses_of_batch(model: torch.nn.Module, rows: list[dict], case: dict) -> list[float]:
    texts = [torch.tensor(row["input_ids"]) for row in rows]
    ids = pad_sequence(texts, batch_first=True, padding_value=case.get("pad", 0))
    mask = pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
    logits = model(input_ids=ids, attention_mask=mask).logits.float()
    if case["classes"]:
        labels = torch.tensor([row["labels"] for row in rows])
        return cross_entropy(logits, labels, reduction="none").tolist()
    of_texts = logits[:, -ids.shape[1] :]  # virtual tokens stand before a text
    return [
        cross_entropy(of_text[: len(text) - 1], text[1:]).item()
        for of_text, text in zip(of_texts, texts, strict=True)
    ]


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable()
    torch.set_num_threads(1)
    answers = [losses(opened(case), case) for case in json.load(sys.stdin)]
    assert "rankwise" not in sys.modules
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
