"""Published configurations of the models that are shipped, and their published sizes.

`config` has what the config.json of the repository on the hub says of shapes and computation.
`parameters` is the number of parameters that the hub and the papers report for the class in
`architectures`; each tied table counts once.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """A model as its authors publish it.

    Attributes:
        config: The content of config.json.
        parameters: How many numbers the class in `architectures` has.
        source: Where the size is published.
    """

    config: dict
    parameters: int
    source: str


_SMOLLM = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 49152, "hidden_act": "silu",
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000, "tie_word_embeddings": True,
    "bos_token_id": 0, "eos_token_id": 0, "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False,
}  # fmt: skip
_QWEN = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0, "use_sliding_window": False, "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151643,
}  # fmt: skip
_LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_act": "silu",
    "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "bos_token_id": 128000, "eos_token_id": 128001,
    "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False,
}  # fmt: skip
_LLAMA_8B = {
    **_LLAMA, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "tie_word_embeddings": False,
}  # fmt: skip


def _longer(factor: float) -> dict:
    """The rotary scaling of Llama 3.1 and 3.2."""
    return {
        "rope_scaling": {
            "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3",
            "original_max_position_embeddings": 8192,
        },
        "max_position_embeddings": 131072,
    }  # fmt: skip


MODELS = {
    "smollm2_135m": Published(
        {**_SMOLLM, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
         "num_key_value_heads": 3},
        134_515_008, "HuggingFaceTB/SmolLM2-135M on the hub",
    ),
    "smollm2_360m": Published(
        {**_SMOLLM, "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15,
         "num_key_value_heads": 5},
        361_821_120, "HuggingFaceTB/SmolLM2-360M on the hub",
    ),
    "qwen2_5_0_5b": Published(
        {**_QWEN, "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
         "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768, "max_window_layers": 24,
         "sliding_window": 32768, "tie_word_embeddings": True},
        494_032_768, "Qwen/Qwen2.5-0.5B on the hub; 0.49B in arXiv 2412.15115",
    ),
    "qwen2_5_1_5b": Published(
        {**_QWEN, "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
         "num_attention_heads": 12, "num_key_value_heads": 2, "max_position_embeddings": 131072, "max_window_layers": 28,
         "sliding_window": 131072, "tie_word_embeddings": True},
        1_543_714_304, "Qwen/Qwen2.5-1.5B on the hub; 1.54B in its card",
    ),
    "qwen2_5_7b": Published(
        {**_QWEN, "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
         "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 131072, "max_window_layers": 28,
         "sliding_window": 131072, "tie_word_embeddings": False},
        7_615_616_512, "Qwen/Qwen2.5-7B on the hub; 7.61B in its card",
    ),
    "llama_3_2_3b": Published(
        {**_LLAMA, **_longer(32.0), "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
         "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True},
        3_212_749_824, "meta-llama/Llama-3.2-3B on the hub; 3.21B in its card",
    ),
    "llama_3_1_8b": Published(
        {**_LLAMA_8B, **_longer(8.0)}, 8_030_261_248, "meta-llama/Llama-3.1-8B on the hub",
    ),
    "llama_3_8b": Published(
        {**_LLAMA_8B, "max_position_embeddings": 8192}, 8_030_261_248, "meta-llama/Meta-Llama-3-8B on the hub",
    ),
    "mistral_7b": Published(
        {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096,
         "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
         "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
         "sliding_window": 4096, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2},
        7_241_732_096, "mistralai/Mistral-7B-v0.1 on the hub; arXiv 2310.06825, table 1",
    ),
    "gemma_2_2b": Published(
        {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "vocab_size": 256000, "hidden_size": 2304,
         "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
         "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 8192,
         "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "query_pre_attn_scalar": 256, "sliding_window": 4096,
         "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "attention_bias": False,
         "attention_dropout": 0.0, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2},
        2_614_341_888, "google/gemma-2-2b on the hub; arXiv 2408.00118, table 2: 2,024,517,888 beside the embedding",
    ),
    "pythia_160m": Published(
        {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "vocab_size": 50304, "hidden_size": 768,
         "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "gelu",
         "max_position_embeddings": 2048, "layer_norm_eps": 1e-5, "rotary_emb_base": 10000, "rotary_pct": 0.25,
         "use_parallel_residual": True, "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0},
        162_322_944, "card of EleutherAI/pythia-160m; arXiv 2304.01373, table 1 (85,056,000 beside its embeddings)",
    ),
    "modernbert_base": Published(
        {"architectures": ["ModernBertForMaskedLM"], "model_type": "modernbert", "vocab_size": 50368, "hidden_size": 768,
         "intermediate_size": 1152, "num_hidden_layers": 22, "num_attention_heads": 12, "hidden_activation": "gelu",
         "max_position_embeddings": 8192, "norm_eps": 1e-5, "norm_bias": False, "attention_bias": False,
         "attention_dropout": 0.0, "mlp_bias": False, "mlp_dropout": 0.0, "embedding_dropout": 0.0, "decoder_bias": True,
         "classifier_pooling": "mean", "classifier_activation": "gelu", "classifier_bias": False,
         "classifier_dropout": 0.0, "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0,
         "local_attention": 128, "local_rope_theta": 10000.0, "tie_word_embeddings": True, "pad_token_id": 50283,
         "bos_token_id": 50281, "cls_token_id": 50281, "eos_token_id": 50282, "sep_token_id": 50282},
        149_655_232, "answerdotai/ModernBERT-base on the hub; 149M in arXiv 2412.13663",
    ),
    "roberta_base": Published(
        {"architectures": ["RobertaForMaskedLM"], "model_type": "roberta", "vocab_size": 50265, "hidden_size": 768,
         "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "gelu",
         "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 514,
         "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
        124_697_433, "FacebookAI/roberta-base on the hub; 125M in arXiv 1907.11692",
    ),
    "mixtral_8x7b": Published(
        {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096,
         "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
         "num_local_experts": 8, "num_experts_per_tok": 2, "output_router_logits": False, "router_aux_loss_coef": 0.02,
         "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0,
         "sliding_window": None, "tie_word_embeddings": False, "attention_dropout": 0.0, "bos_token_id": 1,
         "eos_token_id": 2},
        46_702_792_704, "mistralai/Mixtral-8x7B-v0.1 on the hub; 47B in arXiv 2401.04088",
    ),
    "qwen3_30b_a3b": Published(
        {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 151936, "hidden_size": 2048,
         "intermediate_size": 6144, "moe_intermediate_size": 768, "num_hidden_layers": 48, "num_attention_heads": 32,
         "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8,
         "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [], "output_router_logits": False,
         "router_aux_loss_coef": 0.001, "hidden_act": "silu", "max_position_embeddings": 40960, "rms_norm_eps": 1e-6,
         "rope_theta": 1000000.0, "use_sliding_window": False, "sliding_window": None, "max_window_layers": 48,
         "attention_bias": False, "attention_dropout": 0.0, "tie_word_embeddings": False, "bos_token_id": 151643,
         "eos_token_id": 151645},
        30_532_122_624, "Qwen/Qwen3-30B-A3B on the hub; 30.5B in its card",
    ),
}  # fmt: skip
