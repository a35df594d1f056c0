"""The reproducibility checklist of a study: each answer from its records, with where to look.

After the checklists of Pineau et al. 2021 (Improving Reproducibility in Machine Learning Research, arXiv 2003.12206) and
of NeurIPS. An answer is yes, partly, no or not applicable.
"""

from rankwise.report.records import (
    UNKNOWN,
    Records,
    environments,
    hours,
    listed,
    source,
    statuses,
    table,
)

PROFILES = ("memory", "flops", "ledger", "fits", "forward", "throughput")
Row = tuple[str, str, str]  # item, answer, where


def checklist(found: Records) -> list[str]:
    """The lines of the section."""
    parts = {
        "Models and algorithms": _algorithms(found),
        "Data": _data(found),
        "Code": _code(found),
        "Experiments": _experiments(found),
    }
    lines = ["## Reproducibility checklist", ""]
    for title, rows in parts.items():
        lines += [f"### {title}", "", *table(("item", "answer", "where"), rows)]
    return lines


def _yes(reasons_against: list[str], all_of: int) -> str:
    if not reasons_against:
        return "yes"
    return "no" if len(reasons_against) == all_of else "partly"


def _algorithms(found: Records) -> list[Row]:
    unsourced = [name for name, entry in found.used("methods").items() if "source" not in entry]
    costs = [name for name in PROFILES if found.plan.cells(name)]
    tables = listed((f"results/tables/{name}.csv" for name in costs), "the study plans no profile")
    return [
        (
            "each algorithm described, with its source",
            _yes(unsourced, len(found.used("methods"))),
            "docs/methods.md; below, Methods",
        ),
        ("each architecture written out", "yes", "config/models.yaml"),
        ("cost in time and memory", "yes" if costs else "no", tables),
        ("theoretical claims", "not applicable", "the study makes none"),
    ]


def _data(found: Records) -> list[Row]:
    entries = found.used("datasets")
    read = [name for kind, name in found.plan.inputs() if kind == "dataset"]
    uncounted = [name for name in read if ("dataset", name) not in found.inputs]
    pinned = [name for name, entry in entries.items() if UNKNOWN in source(entry)]
    made = [name for name, entry in entries.items() if "generated" in entry]
    held = listed(
        (f"{name}: {entries[name]['selection_rows']} rows" for name in read), "nothing is trained"
    )
    licences = _licences(found)
    return [
        (
            "examples of each split counted",
            _yes(uncounted, len(read)) if read else "not applicable",
            "below, Data sets",
        ),
        (
            "selection never on the reported split",
            "yes" if read else "not applicable",
            f"held out of train: {held}",
        ),
        (
            "data can be had again, at a pinned revision or checksum",
            _yes(pinned, len(entries)),
            "below, Data sets",
        ),
        (
            "new data described",
            "yes" if made else "not applicable",
            f"src/rankwise/data/synthetic.py: {listed(made)}" if made else "none",
        ),
        ("licences of data and weights named", *licences),
    ]


def _licences(found: Records) -> tuple[str, str]:
    lacking = {kind: found.unlicensed(kind) for kind in ("models", "datasets")}
    said = [
        f"config/{kind}.yaml has none for {listed(names)}"
        for kind, names in lacking.items()
        if names
    ]
    every = len(found.used("models")) + len(found.used("datasets"))
    return _yes([name for names in lacking.values() for name in names], every), "; ".join(
        said
    ) or "below, Models and Data sets"


def _code(found: Records) -> list[Row]:
    places = environments(found.results)
    differing = [place for place, _ in places if place["differs_from_lock"]]
    locks = listed(f"{lock['lock']} ({lock['digest']})" for lock in found.request["locks"])
    return [
        ("dependencies pinned", "yes", locks),
        ("installed as pinned", _yes(differing, len(places)), "below, Run-time environment"),
        (
            "training and evaluation code",
            "yes",
            "workflow_scripts/, src/rankwise/; each result has a digest of every source",
        ),
        (
            "pretrained models named",
            "yes" if found.used("models") else "not applicable",
            "below, Models",
        ),
        (
            "commands that reproduce every result",
            "yes",
            "below, Experiment workflow; `rankwise trace FILE` for one",
        ),
    ]


def _experiments(found: Records) -> list[Row]:
    counts = statuses(found.results)
    failed = {name: count.total() - count["ok"] for name, count in counts.items()}
    searched = [grid for grid in found.plan.study["train"] if grid.get("search")]
    wall = listed(
        f"{time:.3g} h on {name} ({timed} of {every} jobs record theirs)"
        for name, (time, timed, every) in hours(found.results).items()
    )
    rows = [
        (
            "number of runs",
            "yes",
            f"{sum(count.total() for count in counts.values())}; below, Runs",
        ),
        (
            "failed runs reported",
            "yes",
            f"{sum(failed.values())} failed"
            + (f": {listed(n for n, k in failed.items() if k)}" if any(failed.values()) else ""),
        ),
        ("time and machines", "yes", f"{wall}; below, Hardware"),
        ("measures defined", "yes", "results/README.md, Columns"),
    ]
    if not found.runs:
        return [
            *rows,
            ("seeds, variation, hyper-parameters", "not applicable", "the study trains nothing"),
        ]
    several = len(found.seeds) > 1
    return [
        *rows,
        ("seeds", "yes", listed(found.seeds)),
        ("hyper-parameters of every run", "yes", "the request in each result; below, Settings"),
        (
            "hyper-parameters searched, with one budget for all",
            "yes" if searched else "no",
            "results/tables/search.csv" if searched else "set in config/, no search recorded",
        ),
        (
            "variation over seeds",
            "yes" if several else "no",
            variation(found) if several else "one seed: no interval",
        ),
    ]


def variation(found: Records) -> str:
    """How the study states uncertainty, as its tables say."""
    if "comparisons" not in found.frames:
        return "standard deviation over seeds, results/tables/summary.csv"
    compared = found.frames["comparisons"]
    tests = listed(dict.fromkeys(compared["test"].dropna())) if "test" in compared else UNKNOWN
    verdicts = listed(
        f"{count} {verdict}"
        for verdict, count in compared["verdict"].value_counts(sort=False).items()
    )
    margins = (
        listed(f"{margin:g}" for margin in dict.fromkeys(compared["margin"].dropna()))
        if "margin" in compared
        else UNKNOWN
    )
    how = f"95 % intervals; {len(compared)} pairs tested by {tests}, margin {margins}: {verdicts or 'none'}"
    return f"{how}; results/tables/comparisons.csv"
