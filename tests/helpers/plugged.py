"""A project whose entries name classes of installed packages, as docs/extend shows them."""

import re
from pathlib import Path

import yaml

from helpers import conformance
from helpers.doc_blocks import blocks
from rankwise.study.plan import Plan

LION = "lion_pack.lion:Lion"
STEPPING = """
import torch

class Stepping(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad, alpha=group["lr"])
"""


def entries_of_the_docs() -> dict:
    """The entries that docs/extend shows with a class of a package."""
    texts = [
        block.text
        for block in blocks("yaml")
        if "extend" in block.page and re.search(r'module: "\w+\.\w+:', block.text)
    ]
    return yaml.safe_load("".join(texts))


def add(name: str, **entry: object) -> None:
    """Add an entry to the project in which the test runs."""
    file = Path("config/methods.yaml")
    entries = yaml.safe_load(file.read_text())
    entries[name] = {"module": "full", "learning_rate": 1e-3, **entry}
    file.write_text(yaml.safe_dump(entries))


def request_of(name: str, measurement: str = "memory", model: str = "tiny") -> dict:
    grid = {
        "models": [model],
        "datasets": [conformance.TASKS[model][0]],
        "methods": [name],
        "ranks": [4],
        "batch_size": 2,
        "sequence_length_tokens": 12,
        "measurements": [measurement],
    }
    study = {"name": "own", "question": "?", "device": "cpu", "profile": [grid]}
    plan = Plan(study, Path.cwd(), "study.yaml")
    return plan.request(measurement, plan.cells(measurement)[0])
