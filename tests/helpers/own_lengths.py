"""A study of texts of 5 to 62 tokens, prepared without Snakemake, whose lengths profiles read."""

import functools
import random
from pathlib import Path

from helpers import file_inputs
from helpers.repository import ROOT
from helpers.stored import store_result
from rankwise.core import dataset_defaults, paths
from rankwise.core.config import library
from rankwise.core.schemas import check
from rankwise.data.model_files import prepare_model
from rankwise.study.plan import Plan

TRAIN_ROWS, SELECTION_ROWS, REPORT_ROWS = 61, 8, 19
BATCH_SIZE = 8  # 53 rows are trained on: six full batches and one of 5
DATASET = {**file_inputs.DATASET, "max_length_tokens": 64}
GRID = {"models": ["mine"], "datasets": ["mine"], "ranks": [4]}
SCHEDULE = {"epochs": 2, "batch_size": BATCH_SIZE, "eval_batch_size": 4, "select": "last"}


def texts(count: int, seed: int, longest: int) -> list[dict]:
    """Rows of 3 to `longest` words; the tokenizer adds 2 tokens to each."""
    draw = random.Random(seed)
    lengths = [longest, *(draw.randint(3, longest) for _ in range(count - 1))]
    draw.shuffle(lengths)
    return [
        {"text": " ".join(draw.choices(file_inputs.WORDS, k=length)), "label": number % 2}
        for number, length in enumerate(lengths)
    ]


class Project:
    """A folder with the files, the prepared inputs and plans on them.

    Args:
        root: Is filled; the working directory must be it, and MY_DATA and MY_MODEL name its parts.
        shapes: Of which model of the library.
    """

    def __init__(self, root: Path, shapes: str = "tiny"):
        (root / "data").mkdir()
        file_inputs.write_tsv(root / "data/train.tsv", texts(TRAIN_ROWS, 1, 60))
        file_inputs.write_tsv(root / "data/dev.tsv", texts(REPORT_ROWS, 2, 40))
        entry = library(ROOT)["models"][shapes]
        model = file_inputs.write_model(root / "model", entry)
        filled = dataset_defaults.filled({"mine": DATASET})
        datasets = check(filled, paths.SCHEMAS / "datasets.schema.yaml", "datasets")
        self.added = {"models": {"mine": model}, "datasets": datasets}
        plan = self.plan(["full"])
        for kind, prepare in (("dataset", file_inputs.prepare_dataset), ("model", prepare_model)):
            request = plan.input_request(kind, "mine")
            store_result(root, request, functools.partial(prepare, request))

    def plan(
        self, methods: list[str], profiles: list[dict] | None = None, **schedule: object
    ) -> Plan:
        """A study that trains some methods with two seeds.

        Args:
            methods: Entries of config/methods.yaml.
            profiles: Grids, but for models, datasets and ranks.
            schedule: What differs from SCHEDULE.
        """
        study = {
            "name": "lengths",
            "question": "?",
            "device": "cpu",
            "cpu_threads": 1,
            "schedule": {**SCHEDULE, **schedule},
            "train": [{**GRID, "methods": methods, "seeds": [0, 1]}],
            "profile": [{**GRID, **grid} for grid in profiles or []],
        }
        return Plan(study, ROOT, added=self.added)

    def ledger_request(self, method: str, **grid: object) -> dict:
        """The request of a ledger, or of another profile, at the dataset's own lengths."""
        profile = {
            "methods": [method],
            "measurements": ["ledger"],
            "sequence_length_tokens": "dataset",
            "batch_size": BATCH_SIZE,
            **grid,
        }
        plan = self.plan(["full"], [profile])
        measurement = profile["measurements"][0]
        return plan.request(measurement, plan.cells(measurement)[0])
