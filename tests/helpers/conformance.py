"""The promises of every entry (rankwise.measure.conformance), for tests of this repository's entries."""

import copy
from pathlib import Path

import pytest

from helpers.repository import ROOT
from rankwise.core.errors import Unsupported
from rankwise.measure.conformance import cases
from rankwise.measure.conformance.cases import (  # noqa: F401 - tests take all of it from here
    BATCH,
    LENGTH,
    PROFILE_BATCH,
    RANK,
    logits,
    make_batch,
)
from rankwise.measure.conformance.promises import (  # noqa: F401
    check_declared,
    check_equal,
    check_gradients_survive_a_step,
    check_merged,
    check_prediction,
    check_resumed,
    check_start,
    check_state_formula,
    check_training,
    declared,
    module_types,
)

# model: its dataset, task and number of classes
TASKS = {
    "tiny": ("generated_reviews", "classification", 2),
    "stories260k": ("wikitext2_files", "language_modelling", 0),
}
# Entries that step from losses, without gradients.
FORWARD_ONLY = ("mezo", "lora_mezo")
# What a method says of a model that it cannot adapt, by (entry, model). Nothing else may be unsupported.
UNSUPPORTED = {
    ("prefix_tuning", "tiny"): "transformers' DistilBERT takes no keys and values from outside",
    ("bitfit", "stories260k"): "the model has no biases",
    ("adaption_prompt", "tiny"): (
        "peft refuses ADAPTION_PROMPT: Unsupported model type for adaption prompt: 'distilbert'."
    ),
}
# By entry: types of peft that need what a study has not, on whatever model.
NEEDS = {
    "adamss": "ADAMSS clusters subspaces by scikit-learn, which Rankwise does not install",
    "cartridge": (
        "CARTRIDGE starts from a document's keys and values, and learns from answers about it"
    ),
    "cpt": "CPT needs the tokens of labelled examples as its prompt, and a loss of its own",
    "frod": "FROD multiplies sparse matrices, whose memory and FLOPs do not follow from shapes",
    "multitask_prompt_tuning": (
        "MULTITASK_PROMPT_TUNING needs the id of a task with every example"
    ),
    "poly": "POLY needs the id of a task with every example",
    "shadow": "SHADOW needs the loss of its second model in every step",
    "xlora": "XLORA mixes LoRA adapters that were trained before",
}
UNSUPPORTED |= {(name, model): reason for name, reason in NEEDS.items() for model in TASKS}


# Types of peft whose places differ on a Llama: no biases, tied embeddings, other norms, prompts. The
# others adapt matrices, and tests/references/test_peft_types.py has wide and tall ones.
PEFT_ON_LLAMA = ("adaption_prompt", "beft", "ln_tuning", "trainable_tokens")


def one_of_each_kind(entries: dict[str, dict]) -> list[str]:
    """Of entries that differ in numbers alone, the first one.

    Method, storage, optimizer, start, DoRA and release tell how an entry meets a model and the loop.
    Every entry keeps its promises in tests/methods/test_conformance.py; what costs seconds an entry
    is tested once a kind.
    """
    first_by_kind: dict[tuple, str] = {}
    for name, entry in entries.items():
        options, optimizer = entry.get("options", {}), entry.get("optimizer", {})
        kind = (
            entry["module"], entry.get("weights"), optimizer.get("module"), optimizer.get("release"),
            *(options.get(key) for key in ("type", "init", "dora", "output_tokens", "placement")),
        )  # fmt: skip
        if entry["module"] != "peft" or name in PEFT_ON_LLAMA:
            first_by_kind.setdefault(kind, name)
    return list(first_by_kind.values())


def request_of(name: str, model: str, measurement: str = "memory", project: Path = ROOT) -> dict:
    """A request of one entry; all entries of a model are planned at once, which is quicker here."""
    plan = cases.plan_of(project, model)
    cell = next(cell for cell in plan.cells(measurement) if cell.method == name)
    return copy.deepcopy(plan.request(measurement, cell))


class Case(cases.Case):
    """A case of an entry of this repository, unless another project is given."""

    def __init__(self, name: str, model: str = "tiny", *, project: Path = ROOT, **settings: object):
        super().__init__(request_of(name, model, project=project), **settings)


def case(name: str, model: str = "tiny", **settings: object) -> Case:
    """A case; the test is skipped if the method refuses the model with the sentence of `UNSUPPORTED`."""
    try:
        return Case(name, model, **settings)
    except Unsupported as error:
        skip_unsupported(name, model, str(error))
        raise


def skip_unsupported(name: str, model: str, reason: str) -> None:
    """Skip the test if this is the reason that is expected; fail it with any other."""
    assert reason == UNSUPPORTED.get((name, model)), (name, model, reason)
    pytest.skip(f"unsupported: {reason}")
