"""The terminal text of `rankwise plan`."""

from collections import Counter

from rankwise.cli.store_text import size
from rankwise.core.units import GIB, duration
from rankwise.core.words import counted

MOST_NAMED = 3  # files or methods that a line names
_REMEDY = " (`snakemake predictions` predicts trainings)"


def text(found: dict) -> str:
    """Jobs that would run, counted by kind, with reasons and costs."""
    kinds = Counter(job["job"] for job in found["jobs"])
    if kinds:
        head = f"{found['study']}: {sum(kinds.values())} jobs would run: {_counted(kinds)}"
        lines = [head, *_reasons(found["jobs"]), _cost(found["cost"])]
    else:
        results = f"all {found['planned']} results are as planned"
        lines = [f"{found['study']}: nothing to be done; {results}"]
    lines += unkept(found["unkept"])
    return "\n".join([*lines, *_leftovers(found["leftovers"], found["study"])])


def unkept(groups: list[dict]) -> list[str]:
    """A line for each model that some runs train whole without keeping its weights.

    Args:
        groups: As `rankwise.audit.unkept.unkept` gives them.
    """
    lines = []
    for group in groups:
        runs, methods = counted(group["runs"], "run"), _named(group["methods"])
        lines.append(
            f"weights not kept: {group['model']}, {runs} ({methods}), about "
            f"{size(group['bytes'])} a run; `keep: merged` in a training grid keeps them"
        )
    return lines


def _leftovers(files: list[str], study: str) -> list[str]:
    """A line on files that the study no longer plans, if there are any."""
    if not files:
        return []
    remedy = f"`rankwise clean --study {study}` removes them"
    return [f"no longer planned: {counted(len(files), 'file')} ({_named(files)}); {remedy}"]


def _named(names: list[str]) -> str:
    """The first names, and how many more there are."""
    named = ", ".join(names[:MOST_NAMED])
    return named if len(names) <= MOST_NAMED else f"{named} and {len(names) - MOST_NAMED} more"


def _counted(kinds: Counter) -> str:
    """`18 train, 2 table`."""
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _reasons(jobs: list[dict]) -> list[str]:
    """A line for each reason, with the number of jobs of each kind that it reruns."""
    kinds_by_reason: dict[str, Counter] = {}
    for job in jobs:
        for reason in job["why"]:
            kinds_by_reason.setdefault(reason, Counter())[job["job"]] += 1
    return [f"  {reason}: {_counted(kinds)}" for reason, kinds in kinds_by_reason.items()]


def time_in_words(hours: float, gpu_hours: float, unknown: int) -> str:
    """The time of jobs: `about 13 minutes, 5 minutes of GPU time; 124 jobs have no time yet`.

    Args:
        hours: Wall-clock hours of all jobs whose time is known, one after the other.
        gpu_hours: Hours of the GPUs that they take: an hour on four GPUs is four.
        unknown: How many jobs have neither a recorded nor a predicted time.
    """
    if not hours and not unknown:
        return "no training and no measurement"  # tables and figures take seconds
    if not hours:
        return f"not known: no such job has run here, and none is predicted{_REMEDY}"
    words = f"about {duration(3600 * hours)}"
    if gpu_hours:
        words += f", {duration(3600 * gpu_hours)} of GPU time"
    if unknown:
        words += f"; {unknown} {'job has' if unknown == 1 else 'jobs have'} no time yet{_REMEDY}"
    return words


def _cost(cost: dict) -> str:
    time = time_in_words(cost["hours"], cost["gpu_hours"], cost["unknown"])
    parts = [f"cost: {time}"]
    if cost["peak_bytes"]:
        parts.append(f"predicted peak {cost['peak_bytes'] / GIB:.2g} GiB")
    parts.append(f"disk {cost['disk_gib']} GiB")
    return "; ".join(parts)
