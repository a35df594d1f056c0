r"""Generate an answer, and take what a pattern matches: the scoring of LLM-Adapters.

Published tables of the eight commonsense tasks use it, and so do LoRA's many successors that build
on LLM-Adapters. It is another quantity than the accuracy of lm-evaluation-harness, which compares
likelihoods: a model that writes no answer in the right form has none right here.

The prompt is LLM-Adapters' (Alpaca's without an input), the answer is generated with a beam search
of width 4 unless the entry says another, and the first match counts. Of GSM8K the last number
counts; it is right if it is within 0.001 of the published one.

References:
    LLM-Adapters, Hu et al. 2023, arXiv 2304.01933.
"""

import re

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rankwise.evaluation import files
from rankwise.evaluation.generating import generate
from rankwise.evaluation.scored import Scored

PROMPT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
)
TOLERANCE = 1e-3  # of numbers


def score(request: dict, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Scored:
    """The examples whose generated answer has the right match.

    Args:
        request: The cell's `evaluate` request.
        model: In evaluation mode.
        tokenizer: That of the model.
    """
    entry = request["evaluation"]
    documents = files.documents(entry, "test")[: entry.get("limit")]
    instructions = [document.get("instruction", document["question"]) for document in documents]
    texts = [PROMPT.format(instruction=instruction) for instruction in instructions]
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    generated, truncated = generate(model, tokenizer, prompts, entry)
    answers = [found(text, entry) for text in generated]
    wanted = [document["answer"].rpartition("#### ")[2].strip() for document in documents]
    right = [
        float(is_right(answer, label, entry)) for answer, label in zip(answers, wanted, strict=True)
    ]
    return Scored(
        documents=[files.digest(instruction) for instruction in instructions],
        scores={"accuracy_fraction": right},
        details={"generated": generated, "answer": answers, "wanted": wanted},
        truncated=truncated,
    )


def found(text: str, entry: dict) -> str | None:
    """The answer that a text gives: the first or the last match of the entry's pattern.

    Args:
        text: What the model wrote.
        entry: Gives `pattern`, `take` and `number`; in texts with numbers commas are left out.

    Returns:
        The match, or None if there is none.
    """
    if entry["number"]:
        text = text.replace(",", "")
    matches = [match.group() for match in re.finditer(entry["pattern"], text.strip())]
    if not matches:
        return None
    return matches[0] if entry["take"] == "first" else matches[-1]


def is_right(answer: str | None, label: str, entry: dict) -> bool:
    """Whether an answer is the label; of numbers, whether it is near enough."""
    if answer is None:
        return False
    if not entry["number"]:
        return answer == label
    try:
        return abs(float(answer) - float(label.replace(",", ""))) <= TOLERANCE
    except ValueError:  # two points, or a lone sign
        return False
