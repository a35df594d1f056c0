"""Inputs of trainings as the workflow lays them, made small and without Snakemake."""

import copy
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from rankwise.core import result
from rankwise.data import datasets
from rankwise.study.plan import Plan
from rankwise.training import pretrain


def prepare(
    plan: Plan, root: Path, corpus: int = 1500, rows: dict | None = None, updates: int = 30
) -> None:
    """Every input of the plan below `root`: a small corpus, reviews of so many `rows` a split, a model pre-trained a little."""
    library = copy.deepcopy(plan.library)
    library["datasets"]["generated_text"]["generated"]["rows"]["train"] = corpus
    library["datasets"]["generated_reviews"]["generated"]["rows"] |= rows or {}
    library["models"]["tiny"]["weights"]["pretrain"]["schedule"] |= {
        "updates": updates,
        "evaluate_every_updates": updates,
    }
    plan.library = library
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for kind, name in plan.inputs():
            request, path = plan.input_request(kind, name), root / plan.input_path(kind, name)
            path.parent.mkdir(parents=True)
            AcceleratorState._reset_state(reset_partial_state=True)
            make = datasets.prepare_dataset if kind == "dataset" else pretrain.pretrain
            result.write(path, request, make(request, path.parent), {})
