"""The artifact appendix of a study, in the parts that ACM, SC and MLSys ask for, filled from its records."""

import re
from pathlib import Path

from rankwise.core import provenance
from rankwise.core.result import STATUSES
from rankwise.report.records import (
    UNKNOWN,
    Records,
    device_names,
    environments,
    hours,
    listed,
    peak_bytes,
    source,
    statuses,
    table,
)
from rankwise.study import search_choice
from rankwise.study.plan import FOLDERS


def appendix(found: Records) -> list[str]:
    """The lines of the section."""
    parts = (
        _abstract,
        _meta,
        _models,
        _data,
        _methods,
        _machines,
        _install,
        _workflow,
        _runs,
        _expected,
        _settings,
        _customise,
    )
    return ["## Artifact appendix", "", *(line for part in parts for line in part(found))]


def _abstract(found: Records) -> list[str]:
    trials = sum(one["measurement"] == "trial" for one in found.results)
    seeds = f", seeds {listed(found.seeds)}" if found.seeds else ""
    runs = f"{len(found.runs)} training runs of {len(found.curves())} curves{seeds}"
    others = (
        f"{trials} trials of searches; {len(found.results) - len(found.runs) - trials} profiles"
    )
    return ["### Abstract", "", f"{found.plan.study['question']} {runs}; {others}.", ""]


def _meta(found: Records) -> list[str]:
    request, study = found.request, found.plan.study
    project = request["project"]
    quantities = sorted({name for one in found.runs for name in one.get("metrics", {})})
    rows = [
        (
            "Algorithm",
            listed(entry.get("label", name) for name, entry in found.used("methods").items()),
        ),
        ("Program", f"{project['name']} {project['version']}, a Snakemake workflow"),
        ("Model", listed(found.used("models"))),
        ("Data set", listed(found.used("datasets"))),
        (
            "Run-time environment",
            listed(f"{lock['lock']} ({lock['digest']})" for lock in request["locks"]),
        ),
        ("Hardware", _hardware(found)),
        (
            "Execution",
            f"`{request['commands']['study']}`; threads a job: {study['cpu_threads']}; device: {study['device']}",
        ),
        (
            "Metrics",
            listed(
                [
                    *quantities,
                    *(
                        f"{name} profiles"
                        for name in statuses(found.results)
                        if name not in FOLDERS
                    ),
                ]
            ),
        ),
        ("Output", "results/: tables, figures, a page; results/README.md says what each is"),
        ("Experiments", f"{len(found.results)} jobs, below"),
        ("Disk space", _disk(found)),
        ("Time to prepare", _prepared(found)),
        ("Time to complete", _time(found)),
        (
            "Publicly available",
            f"{UNKNOWN}: pyproject.toml names no address"
            if not project["address"]
            else project["address"],
        ),
        ("Licence of the code", project["licence"] or UNKNOWN),
        ("Archived", UNKNOWN),
    ]
    return ["### Meta-information", "", *table(("item", "value"), rows)]


def _disk(found: Records) -> str:
    there = f"inputs take {_mib(found.disk['inputs'])}, results {_mib(found.disk['results'])}"
    return f"{found.plan.study['disk_gib']} GiB free at the start; {there}"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"


def _hardware(found: Records) -> str:
    names = device_names(found.results)
    peak = peak_bytes(found.results)
    told = [f"{name}: {listed(models, f'name {UNKNOWN}')}" for name, models in names.items()]
    return "; ".join(
        [*told, *([f"at most {_mib(peak)} allocated on a GPU in training"] if peak else [])]
    )


def _prepared(found: Records) -> str:
    timed = {
        name: one["cost"]
        for (kind, name), one in found.inputs.items()
        if kind == "model" and "train_time_s" in one.get("cost", {})
    }
    spent = [
        f"pre-training of {name}: {(cost['train_time_s'] + cost['evaluation_time_s']) / 3600:.3g} h"
        for name, cost in timed.items()
    ]
    return "; ".join([*spent, f"downloads and installation: {UNKNOWN}"])


def _time(found: Records) -> str:
    told = []
    for name, (time, timed, every) in hours(found.results).items():
        kind = "GPU" if name == "cuda" else "CPU"
        told.append(
            f"{time:.3g} {kind} hours of wall clock in the {timed} of {every} jobs on {name} that record theirs"
        )
    return "; ".join(told) or UNKNOWN


def _models(found: Records) -> list[str]:
    rows = [
        (name, source(entry), _licence(found, "models", name))
        for name, entry in found.used("models").items()
    ]
    return ["### Models", "", *table(("model", "source", "licence"), rows)]


def _licence(found: Records, kind: str, name: str) -> str:
    entry = found.used(kind)[name]
    made = "generated" in entry or "pretrain" in entry.get("weights", {})
    project = found.request["project"]
    made_here = (
        f"; made here by code under {project['licence']}" if made and project["licence"] else ""
    )
    return entry.get("licence", f"{UNKNOWN} in config/{kind}.yaml{made_here}")


def _data(found: Records) -> list[str]:
    rows = []
    for name, entry in found.used("datasets").items():
        splits = found.inputs.get(("dataset", name), {}).get("splits", {})
        sizes = listed(
            (f"{split} {one['rows']:,}" for split, one in splits.items()),
            f"{UNKNOWN}: not prepared here",
        )
        rows.append(
            (
                name,
                entry["task"].replace("_", " "),
                source(entry),
                sizes,
                entry["report_split"],
                _licence(found, "datasets", name),
            )
        )
    return [
        "### Data sets",
        "",
        *table(("data set", "task", "source", "rows", "reported split", "licence"), rows),
    ]


def _methods(found: Records) -> list[str]:
    rows = [
        (name, entry.get("label", name), entry.get("source", UNKNOWN))
        for name, entry in found.used("methods").items()
    ]
    return [
        "### Methods",
        "",
        "[docs/methods.md](../docs/methods.md) has each formula.",
        "",
        *table(("method", "label", "source"), rows),
    ]


def _machines(found: Records) -> list[str]:
    rows = []
    for place, count in environments(found.results):
        packages = listed(f"{name} {version}" for name, version in place["packages"].items())
        differs = listed(
            (f"{name} {how}" for name, how in place["differs_from_lock"].items()), "nothing"
        )
        rows.append(
            (
                f"{place['lock']} ({place['digest']})",
                place["python"],
                f"{place['platform']}, {place.get('processor', UNKNOWN)}",
                packages,
                differs,
                place.get("driver", UNKNOWN),
                provenance.digest(place),
                count,
            )
        )
    heads = (
        "lock",
        "Python",
        "platform",
        "packages",
        "differs from the lock",
        "driver",
        "environment_digest",
        "jobs",
    )
    return [
        "### Hardware and run-time environment",
        "",
        f"Devices: {_hardware(found)}.",
        "",
        *table(heads, rows),
    ]


def _install(found: Records) -> list[str]:
    folders = [
        source(entry) for kind in ("models", "datasets") for entry in found.used(kind).values()
    ]
    variables = sorted({name for text in folders for name in re.findall(r"\$\{(\w+)\}", text)})
    needs = (
        [f"Set {listed(f'`{name}`' for name in variables)} to the folders of the files above.", ""]
        if variables
        else []
    )
    return [
        "### Installation",
        "",
        "```",
        "make .venv/ready",
        "```",
        "",
        f"Python {found.request['project']['python']}.",
        "",
        *needs,
    ]


def _workflow(found: Records) -> list[str]:
    commands = found.request["commands"]
    return ["### Experiment workflow", "", "```", commands["study"], commands["page"], "```", ""]


def _runs(found: Records) -> list[str]:
    rows = [
        (name, count.total(), *(count[status] for status in STATUSES))
        for name, count in statuses(found.results).items()
    ]
    failed = [
        (one["path"], one["status"].replace("_", " "), one.get("reason", UNKNOWN))
        for one in found.results
        if one["status"] != "ok"
    ]
    heads = ("measurement", "runs", *(status.replace("_", " ") for status in STATUSES))
    return [
        "### Runs",
        "",
        *table(heads, rows),
        *(table(("result", "status", "reason"), failed) if failed else []),
    ]


def _expected(found: Records) -> list[str]:
    first = found.results[0]
    script = next(name for name in first["request"]["code"] if name.startswith("workflow_scripts/"))
    command = f".venv/bin/python {script} --request @{first['path']} --output again/{Path(first['path']).name}"
    text = "A result can be made again alone, from the request in it. Its `metrics` should come out the same; its `cost` varies."
    lines = ["### Evaluation and expected results", "", text, "", "```", command, "```", ""]
    if "claims" in found.frames:
        verdicts = found.frames["claims"]["verdict"].value_counts()
        lines += [
            "Published numbers, by verdict:",
            "",
            *table(("verdict", "claims"), verdicts.items()),
        ]
    return lines


def _settings(found: Records) -> list[str]:
    rows = []
    for key, runs in found.curves().items():
        schedules = [one["request"]["schedule"] for one in runs]
        chosen = [search_choice.method(one)["learning_rate"] for one in runs]
        rates = dict.fromkeys(f"{rate:g}" for rate in chosen if rate is not None)
        batches = dict.fromkeys(one["batch_size"] * one["accumulation_steps"] for one in schedules)
        updates = dict.fromkeys(
            one["metrics"]["updates"] for one in runs if "updates" in one.get("metrics", {})
        )
        seconds = [
            one["cost"]["train_time_s"] for one in runs if "train_time_s" in one.get("cost", {})
        ]
        mean = f"{sum(seconds) / len(seconds):.3g}" if seconds else UNKNOWN
        rows.append((*key, len(runs), listed(rates), listed(batches), listed(updates), mean))
    heads = (
        "model",
        "data set",
        "method",
        "rank",
        "runs",
        "learning rate",
        "effective batch",
        "updates",
        "mean training time (s)",
    )
    return ["### Settings", "", *table(heads, rows)] if rows else []


def _customise(found: Records) -> list[str]:
    keys = listed(f"`{name}`" for name in found.plan.study)
    text = f"`{found.plan.file}` is the study, with {keys}. Its choices are entries of config/; README.md says how to add one."
    return ["### Customisation", "", text, ""]
