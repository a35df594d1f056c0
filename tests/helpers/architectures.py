"""Every entry of config/methods.yaml on small models of nine architectures, and why it cannot be.

Matrices that a method adapts are those of `targets: all-linear`, because a fused matrix has no role
`query`. The models' entries are derived from configurations alone.
"""

import functools
import json
import tempfile
from pathlib import Path

import transformers
from transformers.models.auto import modeling_auto

from helpers.conformance import NEEDS
from helpers.model_folders import FAMILIES
from helpers.repository import ROOT
from rankwise.core import config
from rankwise.measure.conformance import cases
from rankwise.models.derive import Choices, derive
from rankwise.study import resolve

# Architecture: the task of its cases.
ARCHITECTURES = {
    "llama": "language_modelling",
    "qwen2": "classification",
    "mistral": "language_modelling",
    "gemma2": "classification",
    "phi3": "language_modelling",
    "gpt2": "language_modelling",
    "gpt_neox": "classification",
    "modernbert": "classification",
    "roberta": "classification",
}
CLASSES = {"classification": 3, "language_modelling": 0}
SAVED_CLASSES = {
    "AutoModelForCausalLM": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "AutoModelForMaskedLM": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
}
RANK = 4
# Numbers that are too large for keys of 16 columns.
SMALLER = {"hira_as_lora": {"rank": RANK}, "road": {"settings": {"group_size": 8}}}
HAVE_TARGETS = ("ia3", "weight_reduction")  # modules with targets that an entry may leave out

_LAYOUTS = "contextual sparsity knows the layers of bert, distilbert, gemma2, llama, mistral, qwen2, roberta, not of "
_LINEAR_ONLY = "peft has this method for nn.Linear; the targets of this model are Conv1D"
_NO_LINEAR = "GPT2LMHeadModel has no linear layers to quantize"
# What an entry says of an architecture that it cannot adapt, or how that begins. Nothing else may be unsupported.
UNSUPPORTED = {
    **{(name, family): reason for family in ARCHITECTURES for name, reason in NEEDS.items()},
    **dict.fromkeys(
        [("bitfit", family) for family in ("llama", "mistral", "gemma2", "phi3", "modernbert")],
        "the model has no biases",
    ),
    **{
        (name, family): f"{_LAYOUTS}{family}"
        for family in ("phi3", "gpt2", "gpt_neox", "modernbert")
        for name in ("contextual_sparse_lora", "contextual_sparse_lora_lm")
    },
    **{
        ("adaption_prompt", family): (
            f"peft refuses ADAPTION_PROMPT: Unsupported model type for adaption prompt: '{family}'."
        )
        for family in ("qwen2", "gemma2", "phi3", "gpt_neox", "modernbert", "roberta")
    },
    ("prefix_tuning", "modernbert"): (
        "transformers' ModernBERT takes no keys and values from outside"
    ),
    **dict.fromkeys(
        [("lora_corda", "modernbert"), ("lora_corda_kpm", "modernbert")],
        "start corda needs a covariance over tokens, and head.dense reads one vector a text",
    ),
    # GPT-2 keeps its matrices in Conv1D, as (in, out).
    **dict.fromkeys(
        [(name, "gpt2") for name in ("shira", "oft", "oft_v2", "miss", "miss_bat")], _LINEAR_ONLY
    ),
    ("olora", "gpt2"): "peft starts olora for nn.Linear; the targets of this model are Conv1D",
    **{
        (name, "gpt2"): "factorises Linear layers, the targets are Conv1D"
        for name in (
            *("weight_reduction", "weight_reduction_svt", "weight_reduction_factored"),
            *("weight_reduction_shrunk", "weight_reduction_residual"),
        )
    },
    ("qlora", "gpt2"): f"weights nf4_double: {_NO_LINEAR}",
    ("hira_nf4", "gpt2"): f"weights nf4_double: {_NO_LINEAR}",
    ("qlora_single", "gpt2"): f"weights nf4: {_NO_LINEAR}",
    ("lora_loftq", "gpt2"): f"weights nf4: {_NO_LINEAR}",
    ("lora_int8", "gpt2"): f"weights int8: {_NO_LINEAR}",
    ("osf", "gpt2"): "peft has no OSF for transformer.h.0.attn.c_attn, a Conv1D",
    **{
        (name, "gpt2"): f"peft refuses {name.upper()}: "
        for name in (
            *("boft", "c3a", "delora", "glora", "hra", "lily", "loha", "lokr", "peanut", "psoft"),
            *("beft", "road", "supertuning"),
        )
    },
}


@functools.cache
def entry(family: str) -> dict:
    """The entry of a small model, as `rankwise add model --shapes` derives it."""
    saved, arguments = FAMILIES[family]
    values = transformers.AutoConfig.for_model(family, **arguments).to_dict()
    values["architectures"] = [SAVED_CLASSES[saved][family]]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(values))
        return derive(folder, Choices("small", shapes_only=True), Path(folder)).entry


@functools.cache
def methods() -> dict[str, dict]:
    """The entries, with what is rare moved into the first steps (config/methods_smoke.yaml)."""
    overrides = config.read_yaml(ROOT / cases.SMOKE, cases.SMOKE)["override"]
    found = {}
    for name, method in config.library(ROOT)["methods"].items():
        changes = overrides.get(name, {})
        options = method["options"] | changes.get("options", {}) | SMALLER.get(name, {})
        optimizer = method["optimizer"] | changes.get("optimizer", {})
        found[name] = {**method, "options": options, "optimizer": optimizer}
    return found


def request(name: str, family: str) -> dict:
    """What a job must know of a method on a model.

    Raises:
        ConfigError: planning refuses the method on this model.
    """
    method = methods()[name]
    if "targets" in method["options"] or method["module"] in HAVE_TARGETS:
        method = {**method, "options": {**method["options"], "targets": "all-linear"}}
    model, task = entry(family), ARCHITECTURES[family]
    resolved = resolve.resolve_method(name, method, model, RANK, "study: ranks")
    return {"model": model, "method": resolved, "shapes": {"task": task, "classes": CLASSES[task]}}
