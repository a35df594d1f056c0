"""The choice among the trials of a search, by loss on the selection slice, and its use in the runs
that follow.

Standard library only. Training loads this module by name, so an edit of it reruns the choices of
searches and the runs that follow them.
"""

import math
from collections import Counter

from rankwise.core import store

PARTS = ("options", "optimizer")  # of a method's settings, beside its learning rate


def best(tried: list[tuple[str, float, float | None]]) -> str | None:
    """The trial with the lowest mean loss over its runs.

    Of trials with equal losses it is the one with the lowest learning rate.

    Args:
        tried: Trial, learning rate, and loss on the selection slice (nats) of each run; a run that
            failed has the loss None, and its trial cannot be chosen.

    Returns:
        The trial's name, or None if every trial has a failed run.
    """
    losses_by_trial: dict[tuple[float, str], list[float | None]] = {}
    for trial, rate, run_loss in tried:
        losses_by_trial.setdefault((rate, trial), []).append(run_loss)
    candidates = []
    for (rate, trial), losses in losses_by_trial.items():
        if None not in losses:
            candidates.append((math.fsum(losses) / len(losses), rate, trial))
    if not candidates:
        return None
    _, _, trial = min(candidates)
    return trial


def loss(trial: dict) -> float | None:
    """The loss on the selection slice (nats) in a trial's result; None if the trial failed."""
    return trial["metrics"]["eval_loss_nats"] if trial["status"] == "ok" else None


def choose(request: dict) -> dict:
    """Choose among the trials of a search.

    Args:
        request: The choice's request, which lists the trials' results with the digests of their
            requests.

    Returns:
        `trials`, one row for each run, and the settings `selected`; instead of these a `status` and
        a `reason` if no trial ended well.

    Raises:
        FileNotFoundError: a trial's result is not there.
        StoreError: a trial's file answers another request.
    """
    results = [(run["trial"], _read(run["result"], run["digest"])) for run in request["trials"]]
    trials = [_row(name, run_result) for name, run_result in results]
    chosen = best(
        [(row["trial"], row["learning_rate"], row["selection_loss_nats"]) for row in trials]
    )
    if chosen is None:
        return {**_failure([run_result for _, run_result in results]), "trials": trials}
    settings = next(
        run_result["request"]["trial"] for name, run_result in results if name == chosen
    )
    return {"selected": {"trial": chosen, **settings}, "trials": trials}


def _row(name: str, run_result: dict) -> dict:
    """The row of one run of a trial in the choice."""
    request = run_result["request"]
    return {
        "trial": name,
        "seed": request["cell"]["seed"],
        **request["trial"],
        "status": run_result["status"],
        "selection_loss_nats": loss(run_result),
    }


def _failure(results: list[dict]) -> dict:
    """The most frequent status of the failed runs, and the reason of the first such run.

    The runs that follow the search get this status, too.
    """
    failed = Counter(one["status"] for one in results if one["status"] != "ok").most_common()
    counts = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in failed)
    status = failed[0][0]
    first = next(one for one in results if one["status"] == status)
    reason = f"no trial of the search ended well: {counts}; the first: {first['reason']}"
    return {"status": status, "reason": reason}


def settle(request: dict) -> tuple[dict, dict]:
    """Fill the settings that a search has chosen into a training request.

    Args:
        request: The request of a training run that follows a search.

    Returns:
        The request with the chosen settings, and what the run's result says about them: `selected`.
        If no trial ended well, the request as it was, and the `status` and `reason` of the search.

    Raises:
        FileNotFoundError: the search has not chosen yet.
        StoreError: the file of the choice answers another request.
    """
    curve = {name: value for name, value in request["cell"].items() if name != "seed"}
    digest = request["inputs"]["search"]
    choice = _read(store.cell_place("choose", curve, digest), digest)
    if choice["status"] != "ok":
        return request, {"status": choice["status"], "reason": choice["reason"]}
    settled = {**request, "method": _with_settings(request["method"], choice["selected"])}
    return settled, {"selected": choice["selected"]}


def method(run_result: dict) -> dict:
    """The method that a run was trained with: its request's, with the settings chosen by a search.

    The learning rate is None if the search failed.
    """
    planned = {"learning_rate": None, **run_result["request"]["method"]}
    return _with_settings(planned, run_result.get("selected", {}))


def _with_settings(entry: dict, chosen: dict) -> dict:
    """A method's entry with the settings that a search chose."""
    settled = {**entry}
    if "learning_rate" in chosen:
        settled["learning_rate"] = chosen["learning_rate"]
    for part in PARTS:
        settled[part] = {**entry[part], **chosen.get(part, {})}
    return settled


def _read(place: str, digest: str) -> dict:
    """A result in the store.

    Raises:
        FileNotFoundError: It is not there.
        StoreError: The file there answers another request.
    """
    file = store.Store().find(place)
    if file is None:
        raise FileNotFoundError(f"{place}: not in the store; run snakemake again")
    return store.check_answers(file, digest)
