"""Tiny random decoders, and a tokenizer of single characters."""

import torch
import transformers
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

CHARACTERS = "0123456789+-= \nabcdefghijklmnopqrstuvwxyz:é"
SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
OF_LLAMA = {
    **SIZES,
    "intermediate_size": 48,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
CONFIGURATIONS = {
    "llama": OF_LLAMA,
    "mistral": {**OF_LLAMA, "sliding_window": None},
    "qwen2": OF_LLAMA,
    "gpt_neox": {**SIZES, "intermediate_size": 48, "max_position_embeddings": 64},
    "gpt2": {
        "vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64,
        "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "eos_token_id": 1, "bos_token_id": 0,
    },
}  # fmt: skip


def decoder(family: str = "llama") -> transformers.PreTrainedModel:
    """A random model of a family, in evaluation mode."""
    torch.manual_seed(0)
    configuration = transformers.AutoConfig.for_model(family, **CONFIGURATIONS[family])
    return transformers.AutoModelForCausalLM.from_config(configuration).eval()


def characters(begins: bool = True, **special: str | None) -> PreTrainedTokenizerFast:
    """A tokenizer with a token a character; ids: <s> 0, </s> 1, then CHARACTERS from 2 on.

    Args:
        begins: Whether it puts <s> before each text.
        special: Tokens that replace or remove those of the tokenizer.
    """
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", *CHARACTERS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="="))
    tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    if begins:
        tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokens = {"bos_token": "<s>", "eos_token": "</s>", **special}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{name: token for name, token in tokens.items() if token is not None},
    )


def ids(text: str) -> list[int]:
    """The ids of a text's characters."""
    return [CHARACTERS.index(character) + 2 for character in text]
