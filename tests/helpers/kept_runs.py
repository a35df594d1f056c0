"""Small encoders and decoders in folders, and training runs on them that keep their weights."""

import copy
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.file_inputs import DATASET, WORDS, write_dataset
from helpers.prepared import reset_accelerate
from helpers.repository import ROOT
from helpers.stored import store_result
from rankwise.core import paths, result, store
from rankwise.core.config import library
from rankwise.core.provenance import file_sha256
from rankwise.core.schemas import check
from rankwise.data.datasets import prepare_dataset
from rankwise.data.model_files import prepare_model
from rankwise.data.prepared import load_data
from rankwise.models import build
from rankwise.study.plan import Cell, Plan
from rankwise.training import run as training
from rankwise.training.pretrain import word_tokenizer

MODELS = {"tiny": "mine", "stories260k": "lines"}  # model -> its dataset
LINES = {
    "task": "language_modelling",
    "splits": {"train": {"path": "train.txt"}, "validation": {"path": "dev.txt"}},
    "report_split": "validation",
    "text": "text",
    "max_length_tokens": 16,
    "selection_rows": 4,
}
LICENCE = "You may do this, and not that.\n"
# Scores are stored to seven digits, and were computed in batches with padding.
TOLERANCE = {"rel": 2e-6, "abs": 2e-6}
# The last state, because the best one may be that before the first update, where an adapter does nothing.
SCHEDULE = {"updates": 3, "batch_size": 4, "eval_batch_size": 8, "max_gradient_norm": None, "select": "last"}  # fmt: skip


def plan_of(
    root: Path,
    methods: list[str],
    left_out: frozenset[tuple[str, str]] = frozenset(),
    **study: object,
) -> Plan:
    """A plan of small runs of some entries on both models, with its inputs prepared in `root`.

    Args:
        root: A new folder; the working directory of the runs.
        methods: Entries of config/methods.yaml.
        left_out: Models with a method that they are not trained with.
        study: Further keys of the study, such as `keep`.
    """
    grids = []
    for model, dataset in MODELS.items():
        own = [name for name in methods if (model, name) not in left_out]
        grid = {"models": [model], "datasets": [dataset], "methods": own}
        grids.append({**grid, "ranks": [4], "seeds": [0]})
    # What starts at zero must move far enough to be seen.
    override = {name: {"learning_rate": 1e-2} for name in methods if name != "frozen"}
    for grid in grids:
        grid["override"] = {name: override[name] for name in grid["methods"] if name in override}
    entries = library(ROOT)
    # A merged model computes in fp32, so its scores are those of a run that computed in fp32.
    entries["methods"]["qlora"]["compute"] = "fp32"
    entries["datasets"] |= datasets(root / "data")
    for model in MODELS:
        entries["models"][model] = write_model(root / model, entries["models"][model])
    study |= {"name": "kept", "question": "?", "device": "cpu", "schedule": SCHEDULE}
    return planned({**study, "train": grids}, entries, root)


def planned(study: dict, entries: dict, root: Path) -> Plan:
    """The plan of a study with other entries than the repository's, with its inputs prepared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr("rankwise.study.plan.library", lambda _: entries)
        plan = Plan(study, ROOT)
        for kind, name in plan.inputs():
            make = prepare_dataset if kind == "dataset" else prepare_model
            request = plan.input_request(kind, name)
            if not store.Store(root).find(store.place(request)):
                store_result(root, request, functools.partial(make, request))
    return plan


def datasets(folder: Path) -> dict[str, dict]:
    """Entries of a classification and of a language modelling dataset, whose files are written."""
    write_dataset(folder)
    for split, count in (("train", 60), ("dev", 30)):
        lines = [" ".join(WORDS[(i * 3 + j * j) % 20] for j in range(9)) for i in range(count)]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    mine = {**DATASET, "files": {"folder": str(folder), "format": "tsv"}}
    lines = {**LINES, "files": {"folder": str(folder), "format": "text"}}
    return check({"mine": mine, "lines": lines}, paths.SCHEMAS / "datasets.schema.yaml", "datasets")


def write_model(folder: Path, entry: dict) -> dict:
    """A model with two layers and random weights, and its entry."""
    entry = copy.deepcopy(entry)
    is_decoder = entry["family"] == "llama"
    if is_decoder:
        entry["architecture"] |= {"num_hidden_layers": 2}
    torch.manual_seed(0)
    task = "language_modelling" if is_decoder else "masked_language_modelling"
    model = build.from_shapes(entry, task, 0, "cpu")
    for param in model.parameters():  # so that answers differ between texts
        param.data *= 3
    model.save_pretrained(folder)
    word_tokenizer(WORDS).save_pretrained(folder)
    (folder / "LICENSE").write_text(LICENCE)
    sha256 = file_sha256(folder / "model.safetensors")
    return {**entry, "weights": {"files": str(folder), "sha256": sha256}}


def run(plan: Plan, root: Path, cell: Cell) -> Path:
    """Train one cell as its job does; the file of its result."""
    request = plan.request("train", cell)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        reset_accelerate()
        return store_result(root, request, lambda folder: training.train(request, folder))


def reloaded(cases: list[dict]) -> list[list[float]]:
    """The losses of the examples of each case, as one process without Rankwise finds them."""
    command = [sys.executable, str(ROOT / "tests/helpers/reload_kept.py")]
    asked = json.dumps(cases)
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def base_folder(plan: Plan, root: Path, model: str) -> Path:
    """The folder of a prepared base; the only one, where the clone's sources are not those here."""
    place = store.input_place("model", model, plan.input_digest("model", model))
    planned = (root / store.DEFAULT / place).parent
    if planned.is_dir():
        return planned
    (only,) = planned.parent.iterdir()
    return only


def write_inputs(plan: Plan, root: Path, cell: Cell, file: Path) -> None:
    """Write the token ids of the reported examples, and their labels, for a process without Rankwise."""
    request = plan.request("train", cell)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        data = load_data(request, build.tokenizer(base_folder(plan, root, cell.model)), 0)
        rows = [{**row} for row in data.report]
    plain = [
        {name: value.tolist() if hasattr(value, "tolist") else value for name, value in row.items()}
        for row in rows
    ]
    result.write_json(file, json.loads(json.dumps(plain)))
