"""Prepared inputs of training runs, laid out as the workflow does it, but small and without Snakemake."""

import copy
import functools
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, GradientState

from helpers.stored import change, store_result
from rankwise.core import provenance, result, store
from rankwise.data import datasets
from rankwise.study.plan import Plan
from rankwise.training import pretrain


def prepare(
    plan: Plan,
    root: Path,
    corpus_rows: int = 1500,
    review_rows: dict | None = None,
    selection_rows: int = 400,
    updates: int = 30,
) -> None:
    """Prepare every dataset and model that the plan needs.

    Args:
        plan: Its library is replaced by a copy with the smaller sizes.
        root: Where the store `results/store` is made.
        corpus_rows: Texts to pre-train the tiny model on.
        review_rows: Reviews of each split, the selection rows included in `train`.
        selection_rows: Reviews that are held out of `train`.
        updates: Optimizer updates of the pre-training.
    """
    plan.library = copy.deepcopy(plan.library)
    generated = plan.library["datasets"]
    generated["generated_text"]["generated"]["rows"]["train"] = corpus_rows
    generated["generated_reviews"]["generated"]["rows"] |= review_rows or {}
    generated["generated_reviews"]["selection_rows"] = selection_rows
    schedule = plan.library["models"]["tiny"]["weights"]["pretrain"]["schedule"]
    schedule |= {"updates": updates, "evaluate_every_updates": updates}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for kind, name in plan.inputs():
            make = datasets.prepare_dataset if kind == "dataset" else pretrain.pretrain
            request = plan.input_request(kind, name)
            reset_accelerate()
            store_result(root, request, functools.partial(make, request))


def reset_accelerate() -> None:
    """Let the next run choose device and precision: accelerate keeps both for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def record_model(folder: Path) -> None:
    """Record the files of a prepared model anew, after a test has edited one."""
    record = folder / "model.json"
    stored = result.read(record)
    files = {name: provenance.file_sha256(folder / name) for name in stored["files"]}
    change(record, files=files)


def folder(root: Path, plan: Plan, kind: str, name: str) -> Path:
    """The folder of a prepared dataset or model in the store."""
    place = store.input_place(kind, name, plan.input_digest(kind, name))
    return (root / store.DEFAULT / place).parent
