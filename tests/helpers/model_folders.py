"""Folders of small models with random weights, of many families, and what their entries must say.

The tables are written by hand, from each family's source in transformers.
"""

import re
from pathlib import Path

import tokenizers
import transformers

WIDTH, INNER, LAYERS, HEADS, KEY_HEADS, VOCABULARY, POSITIONS = 32, 48, 2, 4, 2, 99, 320
WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", *(f"w{number}" for number in range(60))]

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {**_SIZES, "num_key_value_heads": KEY_HEADS}
_RELATIVE = {**_SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
# family: (the class that is saved, arguments of its configuration)
FAMILIES = {
    "llama": ("AutoModelForCausalLM", _GROUPED),
    "qwen2": ("AutoModelForCausalLM", _GROUPED),
    "qwen3": ("AutoModelForCausalLM", {**_GROUPED, "head_dim": 8}),
    "mistral": ("AutoModelForCausalLM", _GROUPED),
    "gemma2": ("AutoModelForCausalLM", {**_GROUPED, "head_dim": 8}),
    "gemma3_text": ("AutoModelForCausalLM", {**_GROUPED, "head_dim": 8, "layer_types": ["full_attention", "sliding_attention"]}),
    "phi": ("AutoModelForCausalLM", _SIZES),
    "phi3": ("AutoModelForCausalLM", _GROUPED),
    "gpt2": (
        "AutoModelForCausalLM",
        {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_inner": INNER, "n_layer": LAYERS, "n_head": HEADS, "n_positions": POSITIONS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "gpt_neox": ("AutoModelForCausalLM", _SIZES),
    "opt": (
        "AutoModelForCausalLM",
        {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "ffn_dim": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "max_position_embeddings": POSITIONS, "word_embed_proj_dim": WIDTH, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2},
    ),
    "bert": ("AutoModel", _SIZES),
    "roberta": ("AutoModelForMaskedLM", {**_SIZES, "pad_token_id": 1, "bos_token_id": 0}),
    "deberta": ("AutoModelForMaskedLM", _RELATIVE),
    "deberta-v2": ("AutoModelForMaskedLM", {**_RELATIVE, "position_buckets": 16}),
    "modernbert": ("AutoModelForMaskedLM", {**_SIZES, "cls_token_id": 1, "sep_token_id": 2}),
    "distilbert": (
        "AutoModelForMaskedLM",
        {"vocab_size": VOCABULARY, "dim": WIDTH, "hidden_dim": INNER, "n_layers": LAYERS, "n_heads": HEADS, "max_position_embeddings": POSITIONS, "pad_token_id": 0},
    ),
}  # fmt: skip

_KEYS = KEY_HEADS * WIDTH // HEADS
_GATED = {
    "query": ("layers.*.self_attn.q_proj", (WIDTH, WIDTH)),
    "key": ("layers.*.self_attn.k_proj", (_KEYS, WIDTH)),
    "value": ("layers.*.self_attn.v_proj", (_KEYS, WIDTH)),
    "output": ("layers.*.self_attn.o_proj", (WIDTH, WIDTH)),
    "gate": ("layers.*.mlp.gate_proj", (INNER, WIDTH)),
    "up": ("layers.*.mlp.up_proj", (INNER, WIDTH)),
    "down": ("layers.*.mlp.down_proj", (WIDTH, INNER)),
}


def _bert(query: str, key: str, value: str) -> dict:
    layer = "encoder.layer.*"
    return {
        "query": (f"{layer}.attention.self.{query}", (WIDTH, WIDTH)),
        "key": (f"{layer}.attention.self.{key}", (WIDTH, WIDTH)),
        "value": (f"{layer}.attention.self.{value}", (WIDTH, WIDTH)),
        **_bert_rest(),
    }


def _bert_rest() -> dict:
    return {
        "output": ("encoder.layer.*.attention.output.dense", (WIDTH, WIDTH)),
        "up": ("encoder.layer.*.intermediate.dense", (INNER, WIDTH)),
        "down": ("encoder.layer.*.output.dense", (WIDTH, INNER)),
    }


# family: role -> place of its matrices in the model without a head, shape of the weight as stored
ROLES = {
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text"), _GATED),
    "phi": {
        "query": ("layers.*.self_attn.q_proj", (WIDTH, WIDTH)),
        "key": ("layers.*.self_attn.k_proj", (WIDTH, WIDTH)),
        "value": ("layers.*.self_attn.v_proj", (WIDTH, WIDTH)),
        "output": ("layers.*.self_attn.dense", (WIDTH, WIDTH)),
        "up": ("layers.*.mlp.fc1", (INNER, WIDTH)),
        "down": ("layers.*.mlp.fc2", (WIDTH, INNER)),
    },
    "phi3": {
        "attention": ("layers.*.self_attn.qkv_proj", (WIDTH + 2 * _KEYS, WIDTH)),
        "output": ("layers.*.self_attn.o_proj", (WIDTH, WIDTH)),
        "gate_up": ("layers.*.mlp.gate_up_proj", (2 * INNER, WIDTH)),
        "down": ("layers.*.mlp.down_proj", (WIDTH, INNER)),
    },
    "gpt2": {
        "attention": ("h.*.attn.c_attn", (WIDTH, 3 * WIDTH)),
        "output": ("h.*.attn.c_proj", (WIDTH, WIDTH)),
        "up": ("h.*.mlp.c_fc", (WIDTH, INNER)),
        "down": ("h.*.mlp.c_proj", (INNER, WIDTH)),
    },
    "gpt_neox": {
        "attention": ("layers.*.attention.query_key_value", (3 * WIDTH, WIDTH)),
        "output": ("layers.*.attention.dense", (WIDTH, WIDTH)),
        "up": ("layers.*.mlp.dense_h_to_4h", (INNER, WIDTH)),
        "down": ("layers.*.mlp.dense_4h_to_h", (WIDTH, INNER)),
    },
    "opt": {
        "query": ("decoder.layers.*.self_attn.q_proj", (WIDTH, WIDTH)),
        "key": ("decoder.layers.*.self_attn.k_proj", (WIDTH, WIDTH)),
        "value": ("decoder.layers.*.self_attn.v_proj", (WIDTH, WIDTH)),
        "output": ("decoder.layers.*.self_attn.out_proj", (WIDTH, WIDTH)),
        "up": ("decoder.layers.*.fc1", (INNER, WIDTH)),
        "down": ("decoder.layers.*.fc2", (WIDTH, INNER)),
    },
    "bert": _bert("query", "key", "value"),
    "roberta": _bert("query", "key", "value"),
    "deberta": {
        "attention": ("encoder.layer.*.attention.self.in_proj", (3 * WIDTH, WIDTH)),
        **_bert_rest(),
    },
    "deberta-v2": _bert("query_proj", "key_proj", "value_proj"),
    "modernbert": {
        "attention": ("layers.*.attn.Wqkv", (3 * WIDTH, WIDTH)),
        "output": ("layers.*.attn.Wo", (WIDTH, WIDTH)),
        "gate_up": ("layers.*.mlp.Wi", (2 * INNER, WIDTH)),
        "down": ("layers.*.mlp.Wo", (WIDTH, INNER)),
    },
    "distilbert": {
        "query": ("transformer.layer.*.attention.q_lin", (WIDTH, WIDTH)),
        "key": ("transformer.layer.*.attention.k_lin", (WIDTH, WIDTH)),
        "value": ("transformer.layer.*.attention.v_lin", (WIDTH, WIDTH)),
        "output": ("transformer.layer.*.attention.out_lin", (WIDTH, WIDTH)),
        "up": ("transformer.layer.*.ffn.lin1", (INNER, WIDTH)),
        "down": ("transformer.layer.*.ffn.lin2", (WIDTH, INNER)),
    },
}
# Only of DeBERTa do linear layers read a table of relative positions, without a role of their own.
OTHERS = {
    "bert": {"pooler.dense"},
    "roberta": {"pooler.dense"},  # of the plain model; no task has it
    "deberta": {
        "encoder.layer.*.attention.self.pos_proj",
        "encoder.layer.*.attention.self.pos_q_proj",
    },
    "deberta-v2": {
        "encoder.layer.*.attention.self.pos_key_proj",
        "encoder.layer.*.attention.self.pos_query_proj",
    },
}
_DECODER = {"classification": ["score"], "language_modelling": ["lm_head"]}
_TAGS = {"token_classification": ["classifier"]}
_TAGGING_DECODER = {**_DECODER, "token_classification": ["score"]}
_NEOX = {**_DECODER, **_TAGS}
_DEBERTA = {
    "classification": ["pooler", "classifier"],
    "masked_language_modelling": ["cls"],
    **_TAGS,
}
HEADS_BY_TASK = {
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral", "phi", "phi3"), _TAGGING_DECODER),
    "gemma2": _TAGGING_DECODER,
    **dict.fromkeys(("gemma3_text", "opt"), _DECODER),  # transformers has no tagger of them
    **dict.fromkeys(("gpt2", "gpt_neox"), _NEOX),
    # saved without the head that fills masks
    "bert": {"classification": ["classifier"], **_TAGS},
    "roberta": {
        "classification": ["classifier"],
        "masked_language_modelling": ["lm_head"],
        **_TAGS,
    },
    **dict.fromkeys(("deberta", "deberta-v2"), _DEBERTA),
    "modernbert": {
        "classification": ["classifier"],  # `head` is pretrained
        "masked_language_modelling": ["head", "decoder"],
        **_TAGS,
    },
    "distilbert": {
        "classification": ["pre_classifier", "classifier"],
        "masked_language_modelling": ["vocab_transform", "vocab_layer_norm", "vocab_projector"],
        **_TAGS,
    },
}
# RoBERTa's first two rows belong to padding: a token's position starts behind the padding's id.
LONGEST = {**dict.fromkeys(FAMILIES, POSITIONS), "roberta": POSITIONS - 2}


def save(family: str, folder: Path, saved: str | None = None, **changes: object) -> Path:
    """Save a small model of a family with random weights, and a tokenizer.

    Args:
        family: a key of FAMILIES.
        folder: gets the files.
        saved: the class that is saved, such as AutoModel; that of FAMILIES if not given.
        changes: of the configuration.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    usual, arguments = FAMILIES[family]
    config = transformers.AutoConfig.for_model(family, **{**arguments, **changes})
    getattr(transformers, saved or usual).from_config(config).save_pretrained(folder)
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    special |= {"unk_token": "<unk>", "mask_token": "<mask>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    return folder


def entry_name(family: str) -> str:
    """The name of a family's entry that no shipped entry has."""
    return f"my_{re.sub('[^a-z0-9]', '_', family)}"
