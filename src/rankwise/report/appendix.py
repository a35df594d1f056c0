"""The artifact appendix of a study, in the parts that ACM, SC and MLSys ask for.

It is filled from the records of the study.
"""

import re

from rankwise.core import provenance, requests
from rankwise.core.result import STATUSES
from rankwise.report.records import (
    UNKNOWN,
    Records,
    device_names,
    environments,
    hours_by_device,
    listed,
    overlap_text,
    peak_bytes,
    source,
    status_counts,
    table,
)
from rankwise.study import keep, search_choice
from rankwise.study.measurements import EVALUATE
from rankwise.study.plan import FOLDERS


def appendix(records: Records) -> list[str]:
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
    lines = ["## Artifact appendix", ""]
    for part in parts:
        lines += part(records)
    return lines


def _abstract(records: Records) -> list[str]:
    trials = sum(record["measurement"] == "trial" for record in records.results)
    evaluations = sum(record["measurement"] == EVALUATE for record in records.results)
    profiles = len(records.results) - len(records.runs) - trials - evaluations
    seeds = f", seeds {listed(records.seeds)}" if records.seeds else ""
    curves = len(records.runs_by_curve())
    runs = f"{len(records.runs)} training runs of {curves} curves{seeds}"
    asked = f"{evaluations} evaluations; " if evaluations else ""
    text = f"{runs}; {trials} trials of searches; {asked}{profiles} profiles."
    return ["### Abstract", "", f"{records.plan.study['question']} {text}", ""]


# Meta-information ------------------------------------------------------------------------------


def _meta(records: Records) -> list[str]:
    request, study = records.request, records.plan.study
    project = request["project"]
    labels = [entry.get("label", name) for name, entry in records.used("methods").items()]
    locks = [f"{lock['lock']} ({lock['digest']})" for lock in request["locks"]]
    address = project["address"] or f"{UNKNOWN}: pyproject.toml names no address"
    execution = (
        f"`{request['commands']['study']}`; threads per job: {study['cpu_threads']}; "
        f"device: {study['device']}"
    )
    rows = [
        ("Algorithm", listed(labels)),
        ("Program", f"{project['name']} {project['version']}, a Snakemake workflow"),
        ("Model", listed(records.used("models"))),
        ("Data set", listed(records.used("datasets"))),
        ("Run-time environment", listed(locks)),
        ("Hardware", _hardware(records)),
        ("Execution", execution),
        ("Metrics", _metrics(records)),
        (
            "Output",
            f"{records.plan.results}/: tables, figures, a page; docs/results.md describes each",
        ),
        ("Weights", _weights(records)),
        ("Experiments", f"{len(records.results)} jobs, below"),
        ("Disk space", _disk(records)),
        ("Time to prepare", _time_to_prepare(records)),
        ("Time to complete", _time_to_complete(records)),
        ("Publicly available", address),
        ("Licence of the code", project["licence"] or UNKNOWN),
        ("Archived", UNKNOWN),
    ]
    return ["### Meta-information", "", *table(("item", "value"), rows)]


def _metrics(records: Records) -> str:
    quantities: set[str] = set()
    for record in records.runs:
        quantities.update(record.get("metrics", {}))
    measurements = status_counts(records.results)
    others = [name for name in measurements if name not in FOLDERS]
    profiles = [f"{name} profiles" for name in others if name != EVALUATE]
    for record in records.results:
        if record["measurement"] == EVALUATE:
            scores = {row["metric"] for row in record.get("rows", [])}
            quantities |= {f"{name} of {record['cell']['evaluation']}" for name in scores}
    return listed([*sorted(quantities), *profiles])


def _disk(records: Records) -> str:
    inputs, results = _mib_text(records.disk["inputs"]), _mib_text(records.disk["results"])
    needed = f"{records.plan.study['disk_gib']} GiB free at the start"
    return f"{needed}; inputs take {inputs}, results {results}"


def _mib_text(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"


def _weights(records: Records) -> str:
    """How many runs keep weights of which kind, and their size; this page holds none."""
    sizes: dict[str, list[int]] = {}
    for record in records.runs:
        kept = record.get("weights", {"kind": keep.NONE, "bytes": 0})
        sizes.setdefault(kept["kind"], []).append(kept["bytes"])
    if not sizes:
        return "no training runs"
    texts = []
    for kind, of_kind in sizes.items():
        runs = f"{kind}: {len(of_kind)} of {len(records.runs)} runs"
        texts.append(runs if kind == keep.NONE else f"{runs}, {_mib_text(sum(of_kind))}")
    return (
        f"{'; '.join(sorted(texts))}; kept files lie beside their run's train.json, which has "
        "their SHA-256"
    )


def _hardware(records: Records) -> str:
    texts = []
    for device, names in device_names(records.results).items():
        texts.append(f"{device}: {listed(names, f'name {UNKNOWN}')}")
    peak = peak_bytes(records.results)
    if peak:
        texts.append(f"at most {_mib_text(peak)} allocated on a GPU in training")
    return "; ".join(texts)


def _time_to_prepare(records: Records) -> str:
    texts = []
    for (kind, name), record in records.inputs.items():
        cost = record.get("cost", {})
        if kind == "model" and "train_time_s" in cost:
            hours = (cost["train_time_s"] + cost["evaluation_time_s"]) / 3600
            texts.append(f"pre-training of {name}: {hours:.3g} h")
    return "; ".join([*texts, f"downloads and installation: {UNKNOWN}"])


def _time_to_complete(records: Records) -> str:
    texts = []
    for device, (hours, timed, jobs) in hours_by_device(records.results).items():
        kind = "GPU" if device == "cuda" else "CPU"
        total = f"{hours:.3g} {kind} hours of wall clock"
        texts.append(f"{total} in the {timed} of {jobs} jobs on {device} that record theirs")
    return "; ".join(texts) or UNKNOWN


# Models, data, methods -------------------------------------------------------------------------


def _models(records: Records) -> list[str]:
    rows = []
    for name, entry in records.used("models").items():
        rows.append((name, source(entry), _licence(records, "models", name)))
    return ["### Models", "", *table(("model", "source", "licence"), rows)]


def _licence(records: Records, kind: str, name: str) -> str:
    entry = records.used(kind)[name]
    if "licence" in entry:
        return entry["licence"]
    text = f"{UNKNOWN} in config/{kind}.yaml"
    project_licence = records.request["project"]["licence"]
    is_made_here = "generated" in entry or "pretrain" in entry.get("weights", {})
    if is_made_here and project_licence:
        text += f"; made here by code under {project_licence}"
    return text


def _data(records: Records) -> list[str]:
    rows = []
    for name, entry in records.used("datasets").items():
        prepared = records.inputs.get(("dataset", name), {})
        splits = prepared.get("splits", {})
        sizes = [f"{split} {content['rows']:,}" for split, content in splits.items()]
        row = (
            name,
            entry["task"].replace("_", " "),
            source(entry),
            listed(sizes, f"{UNKNOWN}: not prepared here"),
            entry["report_split"],
            overlap_text(prepared, entry["report_split"]),
            _licence(records, "datasets", name),
        )
        rows.append(row)
    heads = ("data set", "task", "source", "rows", "reported split", "also in train", "licence")
    return ["### Data sets", "", *table(heads, rows)]


def _methods(records: Records) -> list[str]:
    rows = []
    for name, entry in records.used("methods").items():
        rows.append((name, entry.get("label", name), entry.get("source", UNKNOWN)))
    text = "[docs/methods.md](../docs/methods.md) has each formula."
    return ["### Methods", "", text, "", *table(("method", "label", "source"), rows)]


# Machines and commands -------------------------------------------------------------------------


def _machines(records: Records) -> list[str]:
    rows = []
    for environment, jobs in environments(records.results):
        packages = [f"{name} {version}" for name, version in environment["packages"].items()]
        differs = [f"{name} {how}" for name, how in environment["differs_from_lock"].items()]
        row = (
            f"{environment['lock']} ({environment['digest']})",
            environment["python"],
            f"{environment['platform']}, {environment.get('processor', UNKNOWN)}",
            listed(packages),
            listed(differs, "nothing"),
            environment.get("driver", UNKNOWN),
            provenance.digest(environment),
            jobs,
        )
        rows.append(row)
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
    title = "### Hardware and run-time environment"
    return [title, "", f"Devices: {_hardware(records)}.", "", *table(heads, rows)]


def _install(records: Records) -> list[str]:
    lines = ["### Installation", "", "```", "make .venv/ready", "```", ""]
    lines += [f"Python {records.request['project']['python']}.", ""]
    variables: set[str] = set()
    for kind in ("models", "datasets"):
        for entry in records.used(kind).values():
            variables.update(re.findall(r"\$\{(\w+)\}", source(entry)))
    if variables:
        names = listed(f"`{name}`" for name in sorted(variables))
        lines += [f"Set {names} to the folders of the files above.", ""]
    return lines


def _workflow(records: Records) -> list[str]:
    commands = records.request["commands"]
    return ["### Experiment workflow", "", "```", commands["study"], commands["page"], "```", ""]


# Results ---------------------------------------------------------------------------------------


def _runs(records: Records) -> list[str]:
    rows = []
    for name, counts in status_counts(records.results).items():
        rows.append((name, counts.total(), *(counts[status] for status in STATUSES)))
    heads = ("measurement", "runs", *(status.replace("_", " ") for status in STATUSES))
    lines = ["### Runs", "", *table(heads, rows)]
    failed = []
    for record in records.results:
        if record["status"] != "ok":
            status = record["status"].replace("_", " ")
            failed.append((record["path"], status, record.get("reason", UNKNOWN)))
    if failed:
        lines += table(("result", "status", "reason"), failed)
    return lines


def _expected(records: Records) -> list[str]:
    first = records.results[0]
    command = requests.rebuild_command(first["request"], first["path"])
    text = (
        "Each result can be made again alone, from the request that it contains. Its `metrics` "
        "should be the same; its `cost` varies."
    )
    lines = ["### Evaluation and expected results", "", text, "", "```", command, "```", ""]
    if "claims" in records.frames:
        verdicts = records.frames["claims"]["verdict"].value_counts()
        lines += ["Published numbers, by verdict:", ""]
        lines += table(("verdict", "claims"), verdicts.items())
    return lines


def _settings(records: Records) -> list[str]:
    rows = []
    for curve, runs in records.runs_by_curve().items():
        rows.append((*curve, *_curve_settings(runs)))
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


def _curve_settings(runs: list[dict]) -> tuple:
    """Runs, learning rates, effective batches, updates and mean training time of one curve."""
    rates, batches, updates, seconds = [], [], [], []
    for run in runs:
        rate = search_choice.method(run)["learning_rate"]
        if rate is not None:
            rates.append(f"{rate:g}")
        schedule = run["request"]["schedule"]
        batches.append(schedule["batch_size"] * schedule["accumulation_steps"])
        if "updates" in run.get("metrics", {}):
            updates.append(run["metrics"]["updates"])
        if "train_time_s" in run.get("cost", {}):
            seconds.append(run["cost"]["train_time_s"])
    mean = f"{sum(seconds) / len(seconds):.3g}" if seconds else UNKNOWN
    distinct = (listed(dict.fromkeys(values)) for values in (rates, batches, updates))
    return (len(runs), *distinct, mean)


def _customise(records: Records) -> list[str]:
    keys = listed(f"`{name}`" for name in records.plan.study)
    text = (
        f"`{records.plan.file}` defines the study, with the keys {keys}. Their values name "
        "entries of config/; docs/extend/ says how to add one."
    )
    return ["### Customisation", "", text, ""]
