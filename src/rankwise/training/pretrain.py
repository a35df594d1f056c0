"""Pre-train a tiny model on a generated corpus with the training loop itself, so that adapting it means something."""

import tempfile
from pathlib import Path

import torch
from accelerate.utils import set_seed
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from rankwise.core.paths import INPUTS
from rankwise.data.model_files import file_digests
from rankwise.data.prepared import load_data, read_rows
from rankwise.methods.parts.base import Method
from rankwise.models import build
from rankwise.training.checkpoint import Checkpoint
from rankwise.training.loop import Loop

# A text to classify opens with the mask, where the corpus has its verdict: the model is asked to fill it in.
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
    "cls_token": "[MASK]",
}
SEED = 0


def word_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a word of `texts`, in alphabetical order after the special tokens."""
    words = sorted({word for text in texts for word, _ in Whitespace().pre_tokenize_str(text)})
    vocabulary = {
        word: index for index, word in enumerate([*dict.fromkeys(SPECIAL.values()), *words])
    }
    core = Tokenizer(WordLevel(vocabulary, unk_token=SPECIAL["unk_token"]))
    core.pre_tokenizer = Whitespace()
    ends = [(SPECIAL[name], vocabulary[SPECIAL[name]]) for name in ("cls_token", "sep_token")]
    core.post_processor = TemplateProcessing(
        single=f"{ends[0][0]} $A {ends[1][0]}", special_tokens=ends
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, **SPECIAL)


def pretrain(request: dict, folder: Path) -> dict:
    """Train the entry's architecture from scratch and save it in `folder`; the result has the history of its loss."""
    settings = request["model"]["weights"]["pretrain"]
    torch.set_num_threads(settings["cpu_threads"])
    corpus = read_rows(INPUTS / "datasets" / settings["dataset"] / "train.jsonl")
    tokenizer = word_tokenizer([row["text"] for row in corpus])
    _check_size(request["model"], len(tokenizer))
    data = load_data(request, tokenizer, SEED, settings["dataset"])
    set_seed(SEED)
    model = build.from_shapes(request["model"], request["dataset"]["task"], classes=0, device="cpu")
    with Checkpoint(request) as checkpoint:
        loop = Loop(
            model,
            Method(),
            data,
            settings["schedule"],
            "cpu",
            checkpoint,
            tracking={"pretrain": request["name"]},
        )
        found = loop.run(torch.optim.AdamW(model.parameters(), settings["learning_rate"]), SEED)
    with tempfile.TemporaryDirectory(dir=folder) as part:
        model.save_pretrained(part, safe_serialization=True)
        tokenizer.save_pretrained(part)
        for file in Path(part).iterdir():
            file.replace(folder / file.name)
    found.pop("examples")  # nobody compares this model with another
    return {**found, **file_digests(folder)}


def _check_size(model: dict, words: int) -> None:
    size = model["architecture"]["vocab_size"]
    if words > size:
        raise ValueError(
            f"config/models.yaml: architecture.vocab_size: got {size}, allowed: at least the corpus's {words} words"
        )
