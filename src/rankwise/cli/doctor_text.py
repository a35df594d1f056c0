"""What `rankwise doctor` found, for people: this machine, what the study needs, what is missing."""

import re
import textwrap

from rankwise.core.probe import ABSENT

GIB, WIDTH = 2**30, 12
KINDS = {"gpu": "jobs with a GPU", "cpu": "jobs without"}  # of submissions


def text(found: dict) -> str:
    """Three sections, and the verdict as the last line."""
    study, facts = found["study"], found["machine"]
    sections = {
        "This machine": _machine(facts),
        f"What {study} needs": _needs(found["needs"]),
        "What is missing": _missing(found),
    }
    blocks = [
        "\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in sections.items()
    ]
    return "\n\n".join([*blocks, _verdict(found)])


def _lines(rows: dict[str, str | list[str]]) -> list[str]:
    """A line for each value, its name before the first; nothing for a name without values."""
    listed = {
        name: [values] if isinstance(values, str) else values for name, values in rows.items()
    }
    return [
        f"{'' if i else name:<{WIDTH}}{value}"
        for name, values in listed.items()
        for i, value in enumerate(values)
    ]


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


# This machine ---------------------------------------------------------------------------------------------------------


def _machine(facts: dict[str, dict]) -> list[str]:
    """One fact a line; where one cannot be had, why."""
    say = {
        "system": ("system", lambda one: f"{one['platform']}, Python {one['python']}"),
        "CPU": ("processors", _processors),
        "memory": (
            "memory",
            lambda one: f"{_gib(one['usable_bytes'])}, {_gib(one['available_bytes'])} of it free",
        ),
        "GPU": ("cards", _cards),
        "torch": (
            "torch",
            lambda one: (
                f"{one['version']}, {'CUDA ' + one['cuda'] if one['cuda'] else 'without CUDA'}"
            ),
        ),
        "packages": ("packages", _packages),
        "clone": ("clone", _disk),
        "scratch": ("scratch", _disk),
        "hub": (
            "hub",
            lambda one: (
                f"{one['endpoint']} answers"
                if one["endpoint"]
                else "not asked, for HF_HUB_OFFLINE is set"
            ),
        ),
        "containers": ("engines", _engines),
        "image": ("image", lambda one: one["reference"]),
        "SLURM": ("slurm", lambda one: [_partition(node) for node in one["nodes"]]),
        "Kubernetes": (
            "kubernetes",
            lambda one: f"kubectl {one['client']}, a cluster of {one['server']} answers",
        ),
    }
    rows = {
        title: (_trouble if "trouble" in facts[name] else told)(facts[name])
        for title, (name, told) in say.items()
    }
    return _lines(rows)


def _trouble(one: dict) -> list[str]:
    """What is there all the same, then what is wrong."""
    told = _cards if "found" in one else _disk if "path" in one else None
    named = [one[name] for name in ("endpoint", "reference") if one.get(name)]
    return [*(told(one) if told else named), one["trouble"]]


def _processors(one: dict) -> str:
    return f"{one['model']}, {one['count']} cores" + (
        f", {one['usable']} for us" if one["usable"] < one["count"] else ""
    )


def _cards(one: dict) -> list[str]:
    driver = f", driver {one['driver']}" if "driver" in one else ""
    sizes = [
        f", {_gib(card['memory_bytes'])}" if card["memory_bytes"] else "" for card in one["found"]
    ]
    there = [
        f"{card['name']}{size}, {card['uuid']}{driver}"
        for card, size in zip(one["found"], sizes, strict=True)
    ]
    return [
        *(there or [f"no NVIDIA GPU{driver}"]),
        *filter(None, [one.get("refused")]),
        *one["notes"],
    ]


def _packages(one: dict[str, dict]) -> list[str]:
    differ = {
        name: lock["differ"] and f"{lock['differ']} differ, as {lock['first']}"
        for name, lock in one.items()
    }
    return [f"envs/{name:<12}{how or 'as locked'}" for name, how in differ.items()]


def _disk(one: dict) -> list[str]:
    return [f"{_gib(one['free_bytes'])} free in {one['path']}"] if "free_bytes" in one else []


def _engines(one: dict[str, dict]) -> list[str]:
    """Those that are here; the others by name."""
    absent = [name for name, engine in one.items() if engine.get("trouble") == ABSENT]
    lines = [
        f"{name} {engine.get('version') or engine['trouble']}"
        for name, engine in one.items()
        if name not in absent
    ]
    return [*lines, *([f"not here: {', '.join(absent)}"] if absent else [])]


def _partition(node: dict) -> str:
    kinds = (
        ", ".join(
            f"{count} GPU{'s' * (count > 1)} {kind}".strip() for kind, count in node["gpus"].items()
        )
        or "no GPU"
    )
    minutes, nodes = node["minutes"], f"{node['count']} node{'s' * (node['count'] > 1)}"
    time = (
        f"at most {minutes} min"
        if minutes and minutes < 120
        else f"at most {minutes / 60:.4g} h"
        if minutes
        else "no limit"
    )
    name = node["partition"] + (" (default)" if node["default"] else "")
    return f"{name}: {nodes} of {node['cpus']} CPUs, {node['memory_mib'] / 1024:.1f} GiB, {kinds}; {time}"


# What the study needs -------------------------------------------------------------------------------------------------


def _needs(needs: dict) -> list[str]:
    jobs = needs["jobs"]
    which = (
        f"; to be made: {', '.join(f'{count} {kind}' for kind, count in jobs.items())}"
        if jobs
        else ", and all are there"
    )
    unknown = needs["trainings_not_predicted"]
    guess = (
        f"not known of {unknown} trainings: `snakemake predictions` predicts them, without a GPU"
        if unknown
        else ""
    )
    peak = (
        f"{_gib(needs['peak_bytes'])} at its peak for {needs['peak_of']}"
        if needs["peak_bytes"]
        else ""
    )
    rows = {
        "results": f"{needs['results']} planned{which}",
        "GPU": f"one for each of {needs['gpu_jobs']} jobs" if needs["gpu_jobs"] else "none",
        "GPU memory": [line for line in (peak, guess) if line and needs["gpu_jobs"]],
        "memory": f"{needs['memory_mib'] / 1024:.1f} GiB for {needs['memory_of']}"
        if needs["memory_of"]
        else [],
        "disk": f"{needs['disk_gib']:g} GiB",
        "hub": [f"{name}: {repository}" for name, repository in needs["hub"].items()],
        "folders": [f"{name}: {folder}" for name, folder in needs["folders"].items()],
        "packages": ", ".join(needs["locks"]),
        "time": _time(needs) if jobs else [],
    }
    return _lines(rows)


def _time(needs: dict) -> str:
    unknown = needs["jobs_of_unknown_time"]
    if unknown == sum(needs["jobs"].values()):
        return (
            "not known: no such job has run here, and none is predicted (`snakemake predictions`)"
        )
    told = f"about {needs['hours']:.2g} h of jobs, {needs['gpu_hours']:.2g} h of them on a GPU"
    return told + (f"; {unknown} jobs of unknown time" if unknown else "")


# What is missing ------------------------------------------------------------------------------------------------------


def _missing(found: dict) -> list[str]:
    """Each problem with what to do about it, the cluster's beside them, and what stops nothing."""
    remedies: dict[str, list[str]] = {}
    for one in found["missing"]:
        remedies.setdefault(one["do"], []).append(one["what"])
    lead = "- on this machine alone: " if found["runs"] == "cluster" else "- "
    lines = [line for do, whats in remedies.items() for line in _problems(lead, whats, do)] or [
        "nothing"
    ]
    if submitted := found["cluster"]:
        able = {
            words: submitted[kind] for kind, words in KINDS.items() if submitted[kind] is not None
        }
        lines += [f"- SLURM, {words}: {_named(partitions)}" for words, partitions in able.items()]
        lines += [line for what in submitted["problems"] for line in _wrapped("- SLURM: ", what)]
    return [*lines, *(line for note in found["notes"] for line in _wrapped("- note: ", note))]


def _problems(lead: str, whats: list[str], do: str) -> list[str]:
    return [*(line for what in whats for line in _wrapped(lead, what)), *_wrapped("  do: ", do)]


def _named(partitions: list[str]) -> str:
    return f"partition {' or '.join(partitions)}" if partitions else "no partition can run them"


def _wrapped(lead: str, sentence: str) -> list[str]:
    """A sentence on lines of a terminal's width; paths and commands stay whole."""
    hang = " " * (len(re.match(r"\W*", lead)[0]))
    return textwrap.wrap(
        lead + sentence, 126, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False
    )


def _verdict(found: dict) -> str:
    if found["runs"] is None:
        return f"{found['study']} cannot run here."
    where = "here" if found["runs"] == "here" else "on this cluster"
    return f"{found['study']} can run {where}: {found['command']}"
