"""The terminal text of `rankwise doctor`: this machine, the study's needs, what is missing."""

import re
import textwrap
from collections.abc import Callable

from rankwise.cli.plan_text import time_in_words
from rankwise.core.probe import ABSENT
from rankwise.core.units import GIB, duration

NAME_WIDTH = 12  # columns of a row's name
LINE_WIDTH = 126
# Kind of submission to a cluster -> its name.
SUBMISSIONS = {"gpu": "jobs with a GPU", "cpu": "jobs without"}
Values = str | list[str]  # of one row: a value, or a value a line


def text(found: dict) -> str:
    """Three sections, and the verdict as the last line."""
    sections = {
        "This machine": _machine(found["machine"]),
        f"What {found['study']} needs": _needs(found["needs"]),
        "What is missing": _missing(found),
    }
    blocks = []
    for title, lines in sections.items():
        blocks.append("\n".join([title, *(f"  {line}" for line in lines)]))
    return "\n\n".join([*blocks, _verdict(found)])


def _lines(rows: dict[str, Values]) -> list[str]:
    """A line for each value, with the row's name before the first."""
    lines = []
    for name, values in rows.items():
        for number, value in enumerate([values] if isinstance(values, str) else values):
            lines.append(f"{'' if number else name:<{NAME_WIDTH}}{value}")
    return lines


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / GIB:.1f} GiB"


def _counted(count: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# This machine -------------------------------------------------------------------------------------


def _machine(facts: dict[str, dict]) -> list[str]:
    """One fact a line; the reason where it cannot be found out."""
    rows = {}
    for name, (fact, describe) in FACTS.items():
        value = facts[fact]
        rows[name] = _with_trouble(value) if "trouble" in value else describe(value)
    return _lines(rows)


def _with_trouble(fact: dict) -> list[str]:
    """The known facts, then the mistakes."""
    if "found" in fact:
        known = _gpus(fact)
    elif "path" in fact:
        known = _disk(fact)
    else:
        known = [fact[name] for name in ("endpoint", "reference") if fact.get(name)]
    return [*known, fact["trouble"]]


def _system(system: dict) -> str:
    return f"{system['platform']}, Python {system['python']}"


def _processors(processors: dict) -> str:
    words = f"{processors['model']}, {processors['count']} cores"
    if processors["usable"] < processors["count"]:
        words += f", {processors['usable']} for us"
    return words


def _memory(memory: dict) -> str:
    return f"{_gib(memory['usable_bytes'])}, {_gib(memory['available_bytes'])} of it free"


def _gpus(gpus: dict) -> list[str]:
    driver = f", driver {gpus['driver']}" if "driver" in gpus else ""
    lines = []
    for gpu in gpus["found"]:
        size = f", {_gib(gpu['memory_bytes'])}" if gpu["memory_bytes"] else ""
        lines.append(f"{gpu['name']}{size}, {gpu['uuid']}{driver}")
    if not lines:
        lines.append(f"no NVIDIA GPU{driver}")
    if gpus.get("refused"):
        lines.append(gpus["refused"])
    return [*lines, *gpus["notes"]]


def _torch(torch: dict) -> str:
    cuda = f"CUDA {torch['cuda']}" if torch["cuda"] else "without CUDA"
    return f"{torch['version']}, {cuda}"


def _packages(packages: dict[str, dict]) -> list[str]:
    lines = []
    for name, lock in packages.items():
        differing = f"{lock['differ']} differ, as {lock['first']}"
        lines.append(f"envs/{name:<12}{differing if lock['differ'] else 'as locked'}")
    return lines


def _disk(disk: dict) -> list[str]:
    return [f"{_gib(disk['free_bytes'])} free in {disk['path']}"] if "free_bytes" in disk else []


def _hub(hub: dict) -> str:
    if hub["endpoint"]:
        return f"{hub['endpoint']} answers"
    return "not asked, for HF_HUB_OFFLINE is set"


def _engines(engines: dict[str, dict]) -> list[str]:
    """The engines that are installed, a line each; the others by name on one line."""
    lines, absent = [], []
    for name, engine in engines.items():
        if engine.get("trouble") == ABSENT:
            absent.append(name)
        else:
            lines.append(f"{name} {engine.get('version') or engine['trouble']}")
    if absent:
        lines.append(f"not here: {', '.join(absent)}")
    return lines


def _image(image: dict) -> str:
    return image["reference"]


def _slurm(slurm: dict) -> list[str]:
    return [_nodes(node) for node in slurm["nodes"]]


def _nodes(node: dict) -> str:
    """The equal nodes of one partition."""
    partition = node["partition"] + (" (default)" if node["default"] else "")
    gpus = [f"{_counted(count, 'GPU')} {kind}".strip() for kind, count in node["gpus"].items()]
    return (
        f"{partition}: {_counted(node['count'], 'node')} of {node['cpus']} CPUs, "
        f"{node['memory_mib'] / 1024:.1f} GiB, {', '.join(gpus) or 'no GPU'}; "
        f"{_time_limit(node['minutes'])}"
    )


def _time_limit(minutes: int | None) -> str:
    if not minutes:
        return "no limit"
    return f"at most {duration(60 * minutes)}"


def _kubernetes(kubernetes: dict) -> str:
    return f"kubectl {kubernetes['client']}, a cluster of {kubernetes['server']} answers"


# Row of the section -> the fact that it shows, and a function from the fact to the row's values.
FACTS: dict[str, tuple[str, Callable[[dict], Values]]] = {
    "system": ("system", _system),
    "CPU": ("processors", _processors),
    "memory": ("memory", _memory),
    "GPU": ("cards", _gpus),
    "torch": ("torch", _torch),
    "packages": ("packages", _packages),
    "results": ("clone", _disk),
    "scratch": ("scratch", _disk),
    "hub": ("hub", _hub),
    "containers": ("engines", _engines),
    "image": ("image", _image),
    "SLURM": ("slurm", _slurm),
    "Kubernetes": ("kubernetes", _kubernetes),
}


# What the study needs -----------------------------------------------------------------------------


def _needs(needs: dict) -> list[str]:
    jobs = needs["jobs"]
    counts = ", ".join(f"{count} {kind}" for kind, count in jobs.items())
    pending = f"; to be made: {counts}" if jobs else ", and all are there"
    memory = f"{needs['memory_mib'] / 1024:.1f} GiB for {needs['memory_of']}"
    time = time_in_words(needs["hours"], needs["gpu_hours"], needs["jobs_of_unknown_time"])
    rows = {
        "results": f"{needs['results']} planned{pending}",
        "GPU": f"one for each process of {needs['gpu_jobs']} jobs" if needs["gpu_jobs"] else "none",
        "GPU memory": _gpu_memory(needs),
        "memory": memory if needs["memory_of"] else [],
        "disk": f"{needs['disk_gib']:g} GiB",
        "hub": [f"{name}: {repository}" for name, repository in needs["hub"].items()],
        "folders": [f"{name}: {folder}" for name, folder in needs["folders"].items()],
        "packages": ", ".join(needs["locks"]),
        "time": time if jobs else [],
    }
    return _lines(rows)


def _gpu_memory(needs: dict) -> list[str]:
    """The largest predicted peak, and how many training runs are not predicted."""
    lines = []
    if needs["gpu_jobs"] and needs["peak_bytes"]:
        lines.append(f"{_gib(needs['peak_bytes'])} at its peak for {needs['peak_of']}")
    if needs["gpu_jobs"] and needs["trainings_not_predicted"]:
        lines.append(
            f"not known of {needs['trainings_not_predicted']} trainings: "
            "`snakemake predictions` predicts them, without a GPU"
        )
    return lines


# What is missing ----------------------------------------------------------------------------------


def _missing(found: dict) -> list[str]:
    """Each problem with what to do about it, then what the cluster can run, then notes."""
    problems_by_remedy: dict[str, list[str]] = {}
    for problem in found["missing"]:
        problems_by_remedy.setdefault(problem["do"], []).append(problem["what"])
    lead = "- on this machine alone: " if found["runs"] == "cluster" else "- "
    lines = []
    for remedy, problems in problems_by_remedy.items():
        for problem in problems:
            lines += _wrapped(lead, problem)
        lines += _wrapped("  do: ", remedy)
    if not lines:
        lines.append("nothing")
    if found["cluster"]:
        lines += _cluster(found["cluster"])
    for note in found["notes"]:
        lines += _wrapped("- note: ", note)
    return lines


def _cluster(cluster: dict) -> list[str]:
    """The partitions that could run each kind of submission, and problems with the requests."""
    lines = []
    for kind, name in SUBMISSIONS.items():
        partitions = cluster[kind]
        if partitions is None:  # there are no such jobs
            continue
        which = (
            f"partition {' or '.join(partitions)}" if partitions else "no partition can run them"
        )
        lines.append(f"- SLURM, {name}: {which}")
    for problem in cluster["problems"]:
        lines += _wrapped("- SLURM: ", problem)
    return lines


def _wrapped(lead: str, sentence: str) -> list[str]:
    """A sentence on lines of a terminal's width; paths and commands are not broken."""
    indent = " " * len(re.match(r"\W*", lead)[0])  # as far as the lead's first word
    return textwrap.wrap(
        lead + sentence,
        LINE_WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _verdict(found: dict) -> str:
    if found["runs"] is None:
        return f"{found['study']} cannot run here."
    where = "here" if found["runs"] == "here" else "on this cluster"
    return f"{found['study']} can run {where}: {found['command']}"
