"""Files of prompts with answers, by the names of their columns and by what these hold.

Only names that published instruction files use are taken; everything else is left to the options of
the command.
"""

from rankwise.core.dataset_defaults import ANSWER, MESSAGES, PROMPT
from rankwise.data.propose_columns import Column

TASK = "instruction_tuning"
# Columns of a prompt and an answer -> the keys of an entry.
PAIRS = {
    ("prompt", "answer"): {PROMPT: "prompt", ANSWER: "answer"},
    ("prompt", "response"): {PROMPT: "prompt", ANSWER: "response"},
    ("prompt", "completion"): {PROMPT: "prompt", ANSWER: "completion"},
    ("query", "response"): {PROMPT: "query", ANSWER: "response"},  # MetaMathQA
    ("question", "answer"): {PROMPT: "Question: {question}\nAnswer:\n", ANSWER: "answer"},  # GSM8K
    ("instruction", "output"): {PROMPT: "{instruction}\n\n", ANSWER: "output"},  # Alpaca
}
INPUT = "input"  # of Alpaca's files, blank in many rows
WITH_INPUT = {PROMPT: "{instruction}\n\n{input}\n\n", "prompt_without_input": "{instruction}\n\n"}


def keys(columns: dict[str, Column]) -> dict | None:
    """The keys of an entry that say what prompts and answers are made of.

    Args:
        columns: All columns of a file.

    Returns:
        None if the columns are no prompts and answers, or if the answers could be classes.
    """
    if MESSAGES in columns and columns[MESSAGES].nested:
        return {MESSAGES: MESSAGES}
    for (prompt, answer), found in PAIRS.items():
        if prompt not in columns or answer not in columns:
            continue
        if not columns[prompt].texts or columns[answer].is_label() or columns[answer].nested:
            continue
        with_input = prompt == "instruction" and INPUT in columns
        return {**found, **(WITH_INPUT if with_input else {})}
    return None
