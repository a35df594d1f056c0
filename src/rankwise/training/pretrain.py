"""Pre-train a tiny model on a generated corpus, with the same training loop that fine-tunes it.

A demo then needs no download, and fine-tuning starts from a model that knows the words already.
"""

import tempfile
from pathlib import Path

import torch
from accelerate.utils import set_seed
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split, Whitespace
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rankwise.core import progress, tracker
from rankwise.data.model_files import file_digests, remove_model_files
from rankwise.data.prepared import data_facts, load_data, read_split
from rankwise.methods.parts.base import Method
from rankwise.models import build
from rankwise.training.checkpoint import Checkpoint
from rankwise.training.loop import Loop

# The class token is the mask token. A text of the corpus opens with its verdict in one word. A text
# to classify opens with the mask instead, so the model is asked to fill in the verdict.
SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
    "cls_token": "[MASK]",
}
# The special tokens of a decoder that reads characters. The end of a line is the end of a text, so
# the corpus teaches it.
END_OF_LINE = "\n"
SPECIAL_CHARACTERS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": END_OF_LINE}
PRINTABLE = frozenset(map(chr, range(32, 127)))  # of ASCII
SEED = 0


def word_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word.

    Args:
        texts: Every word in them gets a token, in alphabetical order after the special tokens.
    """
    words = set()
    for text in texts:
        words.update(word for word, _ in Whitespace().pre_tokenize_str(text))
    special = list(dict.fromkeys(SPECIAL_TOKENS.values()))  # without duplicates, in this order
    vocabulary = {token: index for index, token in enumerate([*special, *sorted(words)])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.pre_tokenizer = Whitespace()
    first, last = SPECIAL_TOKENS["cls_token"], SPECIAL_TOKENS["sep_token"]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A {last}",
        special_tokens=[(first, vocabulary[first]), (last, vocabulary[last])],
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_TOKENS)


def character_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per character, which adds no token to a text.

    Args:
        texts: Every character in them gets a token, as every printable one of ASCII does, in the
            order of Unicode after the special tokens.
    """
    characters = PRINTABLE.union(*texts) - {END_OF_LINE}
    tokens = [*SPECIAL_CHARACTERS.values(), *sorted(characters)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=SPECIAL_CHARACTERS["unk_token"]))
    tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = Fuse()  # without it, decoding would put spaces between the characters
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **SPECIAL_CHARACTERS
    )


TOKENIZERS = {"words": word_tokenizer, "characters": character_tokenizer}


def pretrain(request: dict, folder: Path) -> dict:
    """Train a model from random weights and save it with its tokenizer.

    Args:
        request: The request of a model entry with `weights.pretrain`.
        folder: Where the files go, in Hugging Face's layout.

    Returns:
        What `Loop.run` returns without `examples`, `data` (the counts of its rows), and the SHA-256
        of each file.

    Raises:
        ValueError: The corpus has more tokens than the entry's vocabulary.
    """
    settings = request["model"]["weights"]["pretrain"]
    torch.set_num_threads(settings["cpu_threads"])
    progress.doing(f"reading the corpus {settings['dataset']}")
    corpus = read_split(request, settings["dataset"], "train")
    tokenizer = TOKENIZERS[settings["tokens"]]([row["text"] for row in corpus])
    _check_vocabulary(request["model"], len(tokenizer))
    data = load_data(request, tokenizer, SEED, settings["dataset"])
    set_seed(SEED)
    model = build.checked_from_shapes(
        request["model"],
        request["dataset"]["task"],
        classes=0,
        device="cpu",
        attention=settings["schedule"].get("attention"),
    )
    with Checkpoint(request) as checkpoint:
        loop = Loop(
            model,
            Method(),
            data,
            settings["schedule"],
            "cpu",
            checkpoint,
            tracker.of_run(f"pretraining/{request['name']}", request),
        )
        optimizer = torch.optim.AdamW(model.parameters(), settings["learning_rate"])
        progress.doing(f"pre-training on {len(data.train):,} examples")
        result = loop.run(optimizer, SEED)
    saved = _save(model, tokenizer, folder)
    result.pop("examples")  # no other model is compared with this one by example
    result["data"] = data_facts(request, settings["dataset"])
    return {**result, **file_digests(saved)}


def _save(model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path) -> list[Path]:
    """Save both, file by file, so that `folder` never holds half a file; all saved files."""
    remove_model_files(folder)
    with tempfile.TemporaryDirectory(dir=folder) as partial:
        model.save_pretrained(partial, safe_serialization=True)
        tokenizer.save_pretrained(partial)
        files = sorted(Path(partial).iterdir())
        return [file.replace(folder / file.name) for file in files]


def _check_vocabulary(model: dict, tokens: int) -> None:
    size = model["architecture"]["vocab_size"]
    if tokens > size:
        raise ValueError(
            f"config/models.yaml: architecture.vocab_size: got {size}, "
            f"allowed: at least the corpus's {tokens} tokens"
        )
