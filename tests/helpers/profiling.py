"""Requests of profiles as the workflow makes them, and FLOPs of models in closed form."""

from types import MappingProxyType

import yaml

from helpers.repository import ROOT
from rankwise.study.plan import Plan

_SMOKE = yaml.safe_load((ROOT / "config/methods_smoke.yaml").read_text(encoding="utf-8"))
# Options that let what happens rarely happen within a few steps.


def smoke_override(method: str) -> dict:
    """The smoke study's override of one method, if it has any."""
    return {name: values for name, values in _SMOKE["override"].items() if name == method}


def profile_plan(
    measurement: str,
    method: str,
    model: str = "tiny",
    dataset: str = "generated_reviews",
    rank: int = 4,
    **grid: object,
) -> Plan:
    """A plan with one cell, which is profiled on the CPU unless `grid` says otherwise."""
    cell = {"models": [model], "datasets": [dataset], "methods": [method], "ranks": [rank]}
    study = {"name": "t", "question": "?", "device": "cpu", "cpu_threads": 1}
    return Plan({**study, "profile": [{**cell, "measurements": [measurement], **grid}]}, ROOT)


def profile_request(measurement: str, method: str, **settings: object) -> dict:
    """The request of the one cell of `profile_plan`."""
    plan = profile_plan(measurement, method, **settings)
    return plan.request(measurement, plan.cells(measurement)[0])


def ledger_request(model: str, method: str, measurement: str = "ledger", **grid: object) -> dict:
    """A request of the memory ledger, or of another profile on the same grid."""
    sizes = {"dataset": "sst2", "batch_size": 8, "sequence_length_tokens": 32}
    override = smoke_override(method) if model == "tiny" else {}
    return profile_request(
        measurement, method, **{"model": model, "override": override, **sizes, **grid}
    )


class TinyEncoder:
    """The models entry `tiny`: a DistilBERT with these sizes, here classifying generated_reviews."""

    WIDTH, INNER, LAYERS, CLASSES = 64, 128, 2, 2
    # (rows, columns) by role
    MATRICES = MappingProxyType(
        {
            "query": (64, 64),
            "key": (64, 64),
            "value": (64, 64),
            "output": (64, 64),
            "up": (128, 64),
            "down": (64, 128),
        }
    )

    @classmethod
    def forward_flops(cls, batch_size: int, length: int) -> int:
        """Two FLOPs a multiply-add: linear layers, attention, and the head on one token each."""
        tokens = batch_size * length
        linear = sum(2 * tokens * rows * columns for rows, columns in cls.MATRICES.values())
        scores_and_values = 2 * 2 * batch_size * length**2 * cls.WIDTH
        head = 2 * batch_size * (cls.WIDTH**2 + cls.CLASSES * cls.WIDTH)
        return cls.LAYERS * (linear + scores_and_values) + head
