"""Which files of a model's folder are copied: configuration, weights, tokenizer and licence.

Standard library only: the Snakefile imports this module.
"""

import json
from pathlib import Path

from rankwise.core.errors import shown
from rankwise.core.safetensors_files import weight_files

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CODE_KEY = "auto_map"  # names classes in Python files of the folder or of a repository
# Each of these files can hold a tokenizer's vocabulary alone or, as merges.txt, a part of it.
VOCABULARIES = (
    "tokenizer.json",
    "tokenizer.model",
    "spm.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spm_char.model",
    "tekken.json",
    "tiktoken.model",
    "vocab.txt",
    "vocab.json",
    "bpe.codes",
    "dict.txt",
    "prophetnet.tokenizer",
    "source.spm",
    "target.spm",
    "vocab-src.json",
    "vocab-tgt.json",
    "entity_vocab.json",
    "byte_maps.json",
)
COMMON = 5  # so many are named in a sentence
# What stands beside a vocabulary: `vocab_files_names` of transformers' tokenizers has some, and
# `PreTrainedTokenizerBase.from_pretrained` reads the others.
BESIDE_VOCABULARY = (
    "merges.txt",
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "emoji.json",
    "normalizer.json",
    "target_vocab.json",
    "word_pronunciation.json",
    "word_shape.json",
)
# The base's licence goes along with the weights that are made from it.
LICENCES = (
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "LICENCE",
    "LICENCE.txt",
    "LICENCE.md",
    "COPYING",
    "NOTICE",
    "NOTICE.txt",
    "USE_POLICY.md",
)
# Beside the weights.
COPIED = (CONFIG, "generation_config.json", *VOCABULARIES, *BESIDE_VOCABULARY, *LICENCES)
# Further files that transformers would read; none is copied.
ALSO_READ = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json")


def copied_files(folder: Path) -> list[str]:
    """The names of the files of a model's folder that are copied, those of the weights first.

    Args:
        folder: A model's folder, in Hugging Face's layout.

    Raises:
        ValueError: It has no weights that can be read: none, pickle only, or a shard is missing; or
            it asks for Python code of its own.
    """
    if foreign := foreign_code(folder):
        raise ValueError(foreign)
    return [*weight_files(folder), *(name for name in COPIED if (folder / name).is_file())]


def read_files(folder: Path) -> list[Path]:
    """The files of a folder that belong to a model: what transformers reads, and licences."""
    patterns = (*COPIED, *ALSO_READ)
    return sorted({file for pattern in patterns for file in folder.glob(pattern)})


def has_tokenizer(folder: Path) -> bool:
    """Whether a model's folder has a file with a tokenizer's vocabulary."""
    files = [folder / name for name in VOCABULARIES]
    return any(file.is_file() and file.stat().st_size for file in files)


def foreign_code(folder: Path) -> str | None:
    """The sentence on a model's folder that asks for Python code of its own; None without such.

    No job would run the code (`trust_remote_code=False`), so the model would be another one.
    """
    for name in (CONFIG, TOKENIZER_CONFIG):
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # a sentence of its own says so
        if isinstance(content, dict) and CODE_KEY in content:
            return (
                f"{folder / name}: {CODE_KEY}: got {shown(content[CODE_KEY])}, allowed: no "
                f"{CODE_KEY}, for it makes transformers run Python code of the model's author; if "
                "transformers has this family itself, remove the key from a copy of the folder, "
                "and name the copy in weights.files"
            )
    return None


def no_tokenizer(folder: Path) -> str:
    """The end of a sentence on a folder that has none of `VOCABULARIES`."""
    common = ", ".join(VOCABULARIES[:COMMON])
    return (
        f"{folder} has no tokenizer, allowed: a folder with its files, one of {common}, ...; save "
        "it there with tokenizer.save_pretrained(FOLDER)"
    )
