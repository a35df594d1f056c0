"""The options of `rankwise fits`, and how sizes and lengths are read from the command line."""

import argparse
import re

METHODS = ["full", "lora", "qlora", "galore", "vlorp"]
GIB_PER_UNIT = {"": 1, "gib": 1, "gb": 1e9 / 2**30, "mib": 1 / 2**10, "tib": 2**10}
DENSE = ("fp32", "bf16")
WEIGHTS = (*DENSE, "nf4", "nf4_double", "int8")
LENGTH_TOKENS = 512  # of a text, where neither a dataset nor --length says it
OWN_LENGTHS = "dataset"  # in place of a length, as in a grid of profiles


def _gib(text: str) -> float:
    """A size in GiB, from a text such as 24GiB, 24GB or 512MiB."""
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([a-z]*)", text.lower())
    if not match or match[2] not in GIB_PER_UNIT:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, allowed: a size such as 24GiB, 24GB, 512MiB"
        )
    return float(match[1]) * GIB_PER_UNIT[match[2]]


def _length(text: str) -> int | str:
    """A length in tokens, or the word that stands for those of the dataset."""
    if text == OWN_LENGTHS:
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}, allowed: a number, or {OWN_LENGTHS}")
    return int(text)


# Option -> argparse's settings of it.
OPTIONS: dict[str, dict] = {
    "--model": {
        "default": "distilbert",
        "metavar": "NAME|PATH|HUB_ID",
        "help": "a name in config/models.yaml, a folder with config.json, or a repository on "
        "the hub (owner/name) (default: distilbert)",
    },
    "--memory": {
        "required": True,
        "nargs": "+",
        "type": _gib,
        "metavar": "SIZE",
        "help": "memory sizes, such as 24GiB or 80GiB",
    },
    "--methods": {"nargs": "+", "default": METHODS, "help": "names in config/methods.yaml"},
    "--rank": {
        "type": int,
        "default": 8,
        "help": "the rank where an entry leaves it open (default: 8)",
    },
    "--task": {
        "help": "what the model is trained for (default: language modelling for a causal "
        "language model, classification with two classes for an encoder)",
    },
    "--dataset": {
        "help": "a name in config/datasets.yaml, for its task, classes and length",
    },
    "--length": {
        "nargs": "+",
        "type": _length,
        "help": f"sequence lengths in tokens (default: the dataset's, or {LENGTH_TOKENS}); "
        f"{OWN_LENGTHS} for the longest text of a dataset that a study here has prepared",
    },
    "--target-length": {
        "dest": "target_length_tokens",
        "type": int,
        "help": "tokens of the text that an encoder-decoder writes (default: as many as it reads)",
    },
    "--weights": {
        "choices": WEIGHTS,
        "help": "how the base is stored (default: as each entry says)",
    },
    "--targets": {
        "nargs": "+",
        "metavar": "ROLE",
        "help": "roles of the matrices that are adapted, such as query value; all; or "
        "all-linear (default: as each entry says)",
    },
    "--optimizer": {
        "help": "a file in src/rankwise/optim, for methods that have no optimizer of their own "
        "(default: as each entry says)",
    },
    "--precision": {
        "choices": ["fp32", "bf16", "fp16"],
        "help": "in which matrices are multiplied, by autocast (default: fp32: no autocast)",
    },
    "--attention": {
        "choices": ["sdpa", "eager", "flash"],
        "help": "the attention's implementation (default: sdpa)",
    },
    "--device": {
        "choices": ["cuda", "cpu"],
        "default": "cuda",
        "help": "whose kernels and allocator to predict (default: cuda)",
    },
    "--gpu": {
        "choices": ["ampere", "hopper"],
        "help": "whose workspace cuBLAS takes: ampere stands for all but hopper (default: ampere)",
    },
    "--checkpointing": {
        "action": "store_true",
        "help": "recompute activations in backward",
    },
    "--loss": {
        "choices": ["full", "chunked"],
        "default": "full",
        "help": "the cross-entropy of all logits at once, or chunk by chunk (default: full)",
    },
    "--accumulation": {
        "type": int,
        "default": 1,
        "help": "micro-batches in an update (default: 1)",
    },
}
