"""A small random decoder whose tokens are bytes, so that any text can be asked and written."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END = "<end>"


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte; nothing is added to a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {END: 0, **{letter: place for place, letter in enumerate(alphabet, start=1)}}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END, bos_token=END, model_max_length=10**6
    )


def model(positions: int = 256) -> LlamaForCausalLM:
    """A random Llama of two layers, in evaluation mode."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        initializer_range=0.3,
        eos_token_id=0,
        bos_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


@torch.no_grad()
def greedy(decoder: LlamaForCausalLM, prompt: list[int], count: int) -> list[int]:
    """The most likely tokens behind a prompt, one forward pass each, up to the end-of-text token."""
    written = []
    for _ in range(count):
        logits = decoder(input_ids=torch.tensor([prompt + written])).logits[0, -1]
        token = int(logits.argmax())
        if token == 0:
            break
        written.append(token)
    return written


@torch.no_grad()
def log_likelihood(decoder: LlamaForCausalLM, context: list[int], answer: list[int]) -> float:
    """The sum of the log-probabilities of an answer's tokens behind a context, in nats."""
    logits = decoder(input_ids=torch.tensor([context + answer])).logits[0].double()
    total = 0.0
    for place, token in enumerate(answer, start=len(context)):
        total += float(torch.log_softmax(logits[place - 1], -1)[token])
    return total
