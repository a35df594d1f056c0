"""Every method on small models of nine architectures: what it trains, and why it cannot."""

import functools
import json
import tempfile
from pathlib import Path

from helpers.model_folders import FAMILIES
from rankwise.core import config
from rankwise.measure.conformance import cases
from rankwise.models.derive import Choices, derive
from rankwise.study import resolve

RANK = 4
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
CLASS = {"modernbert": "ModernBertForMaskedLM", "roberta": "RobertaForMaskedLM"}


@functools.cache
def entry(family: str) -> dict:
    """The model's entry, derived from a configuration alone."""
    auto_class, arguments = FAMILIES[family]
    with tempfile.TemporaryDirectory() as folder:
        import transformers

        configuration = transformers.AutoConfig.for_model(family, **arguments)
        names = transformers.models.auto.modeling_auto
        table = {
            "AutoModelForCausalLM": names.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
            "AutoModelForMaskedLM": names.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        }[auto_class]
        file = Path(folder, "config.json")
        values = {**configuration.to_dict(), "architectures": [table[family]]}
        file.write_text(json.dumps(values))
        return derive(folder, Choices("small", shapes_only=True), Path(folder)).entry


@functools.cache
def methods() -> dict[str, dict]:
    root = Path(__file__).parents[2]
    library = config.library(root)
    overrides = config.read_yaml(root / cases.SMOKE, cases.SMOKE)["override"]
    found = {}
    for name, value in library["methods"].items():
        over = overrides.get(name, {})
        found[name] = {
            **value,
            "options": {**value["options"], **over.get("options", {})},
            "optimizer": {**value["optimizer"], **over.get("optimizer", {})},
        }
    return found


def request(name: str, family: str) -> dict:
    method = methods()[name]
    options = resolve.module_options("methods", method["module"], name)
    if "targets" in options:
        method = {**method, "options": {**method["options"], "targets": "all-linear"}}
    model = entry(family)
    resolved = resolve.resolve_method(name, method, model, RANK, "study: ranks")
    task = ARCHITECTURES[family]
    return {"model": model, "method": resolved, "shapes": {"task": task, "classes": CLASSES[task]}}
