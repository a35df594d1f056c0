"""A process without Rankwise that opens kept weights by peft and transformers, and scores examples.

Reads a JSON list of cases from standard input: `folder` (adapter/ or merged/), `base` (a model's
folder), `classes` (0 for a language model) and `rows` of token ids and labels. Prints, for each case,
the loss of each example, computed one example at a time.
"""

import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)


def opened(case: dict) -> torch.nn.Module:
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
    found = []
    for row in case["rows"]:
        ids = torch.tensor([row["input_ids"]])
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
        if case["classes"]:
            found.append(cross_entropy(logits, torch.tensor([row["labels"]]).reshape(1)).item())
        else:  # virtual tokens stand before the text
            of_text = logits[0, -ids.shape[1] :]
            found.append(cross_entropy(of_text[:-1], ids[0, 1:]).item())
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable()
    torch.set_num_threads(1)
    answers = [losses(opened(case), case) for case in json.load(sys.stdin)]
    assert "rankwise" not in sys.modules
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
