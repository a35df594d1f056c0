"""The reproducibility checklist of a study: answers from its records, with where to look.

After the checklists of Pineau et al. 2021 ("Improving Reproducibility in Machine Learning
Research", arXiv 2003.12206) and of NeurIPS. An answer is yes, partly, no or not applicable.
"""

from rankwise.report.records import (
    UNKNOWN,
    Records,
    environments,
    hours_by_device,
    listed,
    source,
    status_counts,
    table,
)

PROFILES = ("memory", "flops", "ledger", "fits", "forward", "throughput")
NOT_APPLICABLE = "not applicable"
ESTIMATES = "tables/estimates.csv"
Row = tuple[str, str, str]  # item, answer, where to look


def checklist(records: Records) -> list[str]:
    """The lines of the section."""
    rows_by_title = {
        "Models and algorithms": _algorithms(records),
        "Data": _data(records),
        "Code": _code(records),
        "Experiments": _experiments(records),
    }
    lines = ["## Reproducibility checklist", ""]
    for title, rows in rows_by_title.items():
        lines += [f"### {title}", "", *table(("item", "answer", "where"), rows)]
    return lines


def _answer(exceptions: list, of: int) -> str:
    """`yes` without exceptions, `no` if everything is one, else `partly`."""
    if not exceptions:
        return "yes"
    return "no" if len(exceptions) == of else "partly"


def _algorithms(records: Records) -> list[Row]:
    methods = records.used("methods")
    without_source = [name for name, entry in methods.items() if "source" not in entry]
    profiled = [name for name in PROFILES if records.plan.cells(name)]
    tables = [records.plan.output(f"tables/{name}.csv") for name in profiled]
    return [
        (
            "each algorithm described, with its source",
            _answer(without_source, len(methods)),
            "docs/methods.md; below, Methods",
        ),
        ("each architecture written out", "yes", "config/models.yaml"),
        (
            "cost in time and memory",
            "yes" if profiled else "no",
            listed(tables, "the study plans no profile"),
        ),
        ("theoretical claims", NOT_APPLICABLE, "the study makes none"),
    ]


# Data ------------------------------------------------------------------------------------------


def _data(records: Records) -> list[Row]:
    entries = records.used("datasets")
    prepared = [name for kind, name in records.plan.inputs() if kind == "dataset"]
    uncounted = [name for name in prepared if ("dataset", name) not in records.inputs]
    unpinned = [name for name, entry in entries.items() if UNKNOWN in source(entry)]
    generated = [name for name, entry in entries.items() if "generated" in entry]
    held_out = [
        f"{name}: {entries[name]['selection_rows'] or 'a tenth of the'} rows" for name in prepared
    ]
    return [
        (
            "examples of each split counted",
            _answer(uncounted, len(prepared)) if prepared else NOT_APPLICABLE,
            "below, Data sets",
        ),
        (
            "selection never on the reported split",
            "yes" if prepared else NOT_APPLICABLE,
            f"held out of train: {listed(held_out, 'nothing is trained')}",
        ),
        (
            "data can be had again, at a pinned revision or checksum",
            _answer(unpinned, len(entries)),
            "below, Data sets",
        ),
        (
            "new data described",
            "yes" if generated else NOT_APPLICABLE,
            f"src/rankwise/data/synthetic.py: {listed(generated)}" if generated else "none",
        ),
        _licences(records),
    ]


def _licences(records: Records) -> Row:
    lacking, texts, used = [], [], 0
    for kind in ("models", "datasets"):
        names = records.unlicensed(kind)
        lacking += names
        used += len(records.used(kind))
        if names:
            texts.append(f"config/{kind}.yaml has none for {listed(names)}")
    where = "; ".join(texts) or "below, Models and Data sets"
    return "licences of data and weights named", _answer(lacking, used), where


# Code and experiments --------------------------------------------------------------------------


def _code(records: Records) -> list[Row]:
    known = environments(records.results)
    differing = [environment for environment, _ in known if environment["differs_from_lock"]]
    locks = [f"{lock['lock']} ({lock['digest']})" for lock in records.request["locks"]]
    return [
        ("dependencies pinned", "yes", listed(locks)),
        ("installed as pinned", _answer(differing, len(known)), "below, Run-time environment"),
        (
            "training and evaluation code",
            "yes",
            "workflow_scripts/, src/rankwise/; each result has a digest of every source",
        ),
        (
            "pretrained models named",
            "yes" if records.used("models") else NOT_APPLICABLE,
            "below, Models",
        ),
        (
            "commands that reproduce every result",
            "yes",
            "below, Experiment workflow; `rankwise trace FILE` for one",
        ),
    ]


def _experiments(records: Records) -> list[Row]:
    counts = status_counts(records.results)
    total = sum(count.total() for count in counts.values())
    rows = [
        ("number of runs", "yes", f"{total}; below, Runs"),
        ("failed runs reported", "yes", _failures(records)),
        ("time and machines", "yes", f"{_hours(records)}; below, Hardware"),
        ("measures defined", "yes", "docs/results.md"),
    ]
    if records.runs:
        return rows + _training(records)
    title = "seeds, variation, hyper-parameters"
    return [*rows, (title, NOT_APPLICABLE, "the study trains nothing")]


def _failures(records: Records) -> str:
    failed = {}
    for name, count in status_counts(records.results).items():
        failed[name] = count.total() - count["ok"]
    text = f"{sum(failed.values())} failed"
    if any(failed.values()):
        text += f": {listed(name for name, count in failed.items() if count)}"
    return text


def _hours(records: Records) -> str:
    texts = []
    for device, (hours, timed, jobs) in hours_by_device(records.results).items():
        texts.append(f"{hours:.3g} h on {device} ({timed} of {jobs} jobs record theirs)")
    return listed(texts)


def _training(records: Records) -> list[Row]:
    searched = any(grid.get("search") for grid in records.plan.study["train"])
    several_seeds = len(records.seeds) > 1
    return [
        ("seeds", "yes", listed(records.seeds)),
        ("hyper-parameters of every run", "yes", "the request in each result; below, Settings"),
        (
            "hyper-parameters searched, with one budget for all",
            "yes" if searched else "no",
            records.plan.output("tables/search.csv")
            if searched
            else "set in config/, no search recorded",
        ),
        (
            "variation over seeds",
            "yes" if several_seeds else "no",
            _variation(records) if several_seeds else "one seed: no interval",
        ),
    ]


def _variation(records: Records) -> str:
    """How the study states its uncertainty, as its tables say."""
    if "comparisons" not in records.frames:
        return f"95 % intervals over seeds and examples, {records.plan.output(ESTIMATES)}"
    compared = records.frames["comparisons"]
    tests, margins = UNKNOWN, UNKNOWN
    if "test" in compared:
        tests = listed(dict.fromkeys(compared["test"].dropna()))
    if "margin" in compared:
        values = dict.fromkeys(compared["margin"].dropna())
        margins = listed(f"{margin:g}" for margin in values)
    counts = compared["verdict"].value_counts(sort=False)
    verdicts = listed((f"{count} {verdict}" for verdict, count in counts.items()), "none")
    pairs = f"{len(compared)} pairs tested by {tests}, margin {margins}: {verdicts}"
    table = records.plan.output("tables/comparisons.csv")
    return f"simultaneous 95 % intervals; {pairs}; {table}"
