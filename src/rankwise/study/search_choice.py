"""What a search settles: the choice among its trials, by loss on the selection slice, and runs with the settings chosen.

Standard library only. Training loads this by name, so that an edit of it reruns searches' choices and what follows them.
"""

import math
from collections import Counter
from pathlib import Path

from rankwise.core import provenance, result

FOLDER = Path("results/search")
PARTS = ("options", "optimizer")  # of a method's settings, beside its learning rate


def best(tried: list[tuple[str, float, float | None]]) -> str | None:
    """Of (trial, learning rate, selection loss in nats) of each run, the trial with the lowest mean loss over its runs.

    A trial of which a run failed (loss None) is out; of equals, the lowest learning rate; None if all are out.
    """
    losses: dict[tuple[float, str], list] = {}
    for trial, rate, loss in tried:
        losses.setdefault((rate, trial), []).append(loss)
    sound = [
        (math.fsum(some) / len(some), *key) for key, some in losses.items() if None not in some
    ]
    return min(sound)[2] if sound else None


def loss(found: dict) -> float | None:
    """The selection loss (nats) of a trial's result; None where it failed."""
    return found["metrics"]["eval_loss_nats"] if found["status"] == "ok" else None


def choose(request: dict) -> dict:
    """The settings `selected` by a search, and every run of its `trials`; a status and a reason if no trial ended well.

    Raises:
        ValueError: a trial answers another request than the one planned.
    """
    runs = [
        (one["trial"], _answer(Path(one["result"]), one["digest"])) for one in request["trials"]
    ]
    trials = [
        {"trial": name, "seed": found["request"]["cell"]["seed"], **found["request"]["trial"], "status": found["status"],
         "selection_loss_nats": loss(found)}
        for name, found in runs
    ]  # fmt: skip
    chosen = best(
        [(one["trial"], one["learning_rate"], one["selection_loss_nats"]) for one in trials]
    )
    if chosen is None:
        counts = Counter(one["status"] for one in trials if one["status"] != "ok").most_common()
        words = ", ".join(f"{number} {status.replace('_', ' ')}" for status, number in counts)
        first = next(found for _, found in runs if found["status"] == counts[0][0])
        reason = f"no trial of the search ended well: {words}; the first: {first['reason']}"
        return {"status": first["status"], "reason": reason, "trials": trials}
    settings = next(found["request"]["trial"] for name, found in runs if name == chosen)
    return {"selected": {"trial": chosen, **settings}, "trials": trials}


def settle(request: dict) -> tuple[dict, dict]:
    """A training request with the settings that its search chose, and what the run's result says of them.

    If no trial ended well, the result is the search's status, with its reason.

    Raises:
        FileNotFoundError: the search's choice is not there.
        ValueError: it answers another request than the one planned.
    """
    cell = request["cell"]
    file = (
        FOLDER
        / cell["model"]
        / cell["dataset"]
        / cell["method"]
        / f"r{cell['rank']}"
        / "selected.json"
    )
    found = _answer(file, request["inputs"]["search"])
    if found["status"] != "ok":
        return request, {"status": found["status"], "reason": found["reason"]}
    return {**request, "method": _with(request["method"], found["selected"])}, {
        "selected": found["selected"]
    }


def method(found: dict) -> dict:
    """The settings that a result's run had: its method, with what its search chose; learning_rate None where that failed."""
    return _with({"learning_rate": None, **found["request"]["method"]}, found.get("selected", {}))


def _with(entry: dict, chosen: dict) -> dict:
    rate = {name: chosen[name] for name in ("learning_rate",) if name in chosen}
    return {**entry, **rate, **{part: {**entry[part], **chosen.get(part, {})} for part in PARTS}}


def _answer(file: Path, expected: str) -> dict:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: not there; build it with: snakemake {file}")
    found = result.read(file)
    if (digest := provenance.digest(found["request"])) != expected:
        raise ValueError(
            f"{file}: answers request {digest}, this job was planned with {expected}; run snakemake again"
        )
    return found
