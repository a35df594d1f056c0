"""The registry of published numbers, for the tests that read it and the tests that judge it."""

from helpers.repository import ROOT
from rankwise.core import config
from rankwise.study import claims
from rankwise.study.plan import Plan

LIBRARY = config.library(ROOT)
REGISTRY = claims.expand(LIBRARY["claims"])
CELL = {"model": "tiny", "dataset": "generated_reviews", "method": "lora", "rank": 2}


def decisive() -> dict[str, dict]:
    """Claims that a number of ours decides."""
    return {name: claim for name, claim in REGISTRY.items() if claim["command"]}


def cells_of(claim: dict) -> list[dict]:
    """Every cell that a claim looks a number up for."""
    cells = [claim["cell"], {**claim["cell"], **claim.get("corrected_cell", {})}]
    if "against" in claim:
        cells.append({**claim["cell"], **claim["against"].get("cell", {})})
    return cells


def plan_of(file: str) -> Plan:
    """The plan of one of the repository's studies."""
    return Plan(config.read_yaml(ROOT / file, file), ROOT, file)
