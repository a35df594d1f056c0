"""What canifinetune and fitcheck-llm estimate for the cases of other_calculators.py, its caller.

It reads cases as JSON from its input and prints estimates in bytes by calculator and case. It needs
those two packages and no Rankwise.
"""

import json
import sys
from importlib.metadata import version

import canifinetune.estimator.memory as canifinetune
from fitcheck.config_parser import ModelConfig
from fitcheck.estimator import TrainingConfig
from fitcheck.estimator import estimate as fitcheck_estimate
from fitcheck.gpu_db import GPU_DB

GIB, MIB = 2**30, 2**20
QUANTIZED = {"nf4": "nf4", "nf4_double": "nf4_double_quant"}  # canifinetune's names
SCOPES = {  # its scopes of targets
    frozenset(("q_proj", "v_proj")): "conservative",
    frozenset(("q_proj", "k_proj", "v_proj", "o_proj")): "attention",
    frozenset(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    ): "all_linear",
}


def head_width(architecture: dict) -> int:
    """Width of a head, in channels."""
    return (
        architecture.get("head_dim")
        or architecture["hidden_size"] // architecture["num_attention_heads"]
    )


def parameters(architecture: dict) -> int:
    """Number of parameters of a decoder like Llama."""
    hidden, width = architecture["hidden_size"], head_width(architecture)
    queries = architecture["num_attention_heads"] * width
    keys = architecture["num_key_value_heads"] * width
    layer = 2 * hidden * (queries + keys) + 3 * hidden * architecture["intermediate_size"]
    embeddings = architecture["vocab_size"] * hidden
    copies = 1 if architecture["tie_word_embeddings"] else 2
    return copies * embeddings + architecture["num_hidden_layers"] * (layer + 2 * hidden) + hidden


def by_canifinetune(case: dict) -> float | None:
    """Its estimate in bytes; None where it has no way to say the targets."""
    scope = SCOPES.get(
        frozenset(case["targets"]), "attention" if case["method"] == "full" else None
    )
    if scope is None:
        return None
    architecture = case["architecture"]
    is_quantized = case["weights"] in QUANTIZED
    request = canifinetune.EstimateRequest(
        model_id="case",
        override={
            "family": architecture["model_type"],
            **architecture,
            "total_params": parameters(architecture),
        },
        use_network=False,
        gpu_vram_gb=case["gpu_gib"],
        method="qlora" if is_quantized else case["method"],
        quantization=QUANTIZED.get(case["weights"], "nf4_double_quant"),
        seq_len=case["sequence_length_tokens"],
        micro_batch_size=case["batch_size"],
        lora_rank=case["rank"] or 16,
        lora_target_scope=scope or "attention",
        optimizer="adamw_torch",
        gradient_checkpointing=case["checkpointing"],
        attention_implementation="flash_attention_2" if case["flash"] else "sdpa",
    )
    memory = canifinetune.estimate(request).memory
    left_out = memory.safety_margin_gb
    if not case["is_reserved"]:
        left_out += memory.cuda_overhead_gb
    return (memory.total_estimated_gb - left_out) * GIB


def by_fitcheck(case: dict) -> float:
    """Its estimate in bytes."""
    architecture = case["architecture"]
    is_quantized = case["weights"] in QUANTIZED
    model = ModelConfig(
        name="case",
        num_params=parameters(architecture),
        hidden_size=architecture["hidden_size"],
        num_layers=architecture["num_hidden_layers"],
        num_attention_heads=architecture["num_attention_heads"],
        num_kv_heads=architecture["num_key_value_heads"],
        intermediate_size=architecture["intermediate_size"],
        vocab_size=architecture["vocab_size"],
        head_dim=head_width(architecture),
        tie_word_embeddings=architecture["tie_word_embeddings"],
    )
    training = TrainingConfig(
        precision="bf16",
        quantization="nf4" if is_quantized else "none",
        double_quant=case["weights"] == "nf4_double",
        optimizer="adamw",
        optimizer_dtype="fp32" if case["method"] == "lora" else "bf16",
        batch_size=case["batch_size"],
        seq_len=case["sequence_length_tokens"],
        lora_rank=case["rank"] if case["method"] == "lora" else None,
        lora_targets=case["targets"] or ["q_proj"],
        grad_checkpoint=case["checkpointing"],
        flash_attn=True,  # torch's scaled_dot_product_attention takes a fused kernel, too
    )
    report = fitcheck_estimate(model, training, GPU_DB[case["gpu"]])
    left_out = 0.0 if case["is_reserved"] else report.overhead_mib
    return (report.total_mib - left_out) * MIB


def main() -> None:
    """Answer the cases of the input."""
    cases = json.load(sys.stdin)
    answer = {
        "versions": {name: version(name) for name in ("canifinetune", "fitcheck-llm")},
        "bytes": {
            "canifinetune": {name: by_canifinetune(case) for name, case in cases.items()},
            "fitcheck-llm": {name: by_fitcheck(case) for name, case in cases.items()},
        },
    }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
