"""What `rankwise.audit.rerun_plan` found, for a terminal."""

from collections import Counter

from rankwise.core.units import GIB


def text(found: dict) -> str:
    """How many jobs of which kind would run, why, and what they cost."""
    kinds = Counter(job["job"] for job in found["jobs"])
    if not kinds:
        return (
            f"{found['study']}: nothing to be done; all {found['planned']} results are as planned"
        )
    head = f"{found['study']}: {sum(kinds.values())} jobs would run: {_counted(kinds)}"
    return "\n".join([head, *_reasons(found["jobs"]), _cost(found["cost"])])


def _counted(kinds: Counter) -> str:
    """`18 train, 2 table`."""
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _reasons(jobs: list[dict]) -> list[str]:
    """A line for each reason, with how many jobs of which kind it reruns."""
    kinds_by_reason: dict[str, Counter] = {}
    for job in jobs:
        for reason in job["why"]:
            kinds_by_reason.setdefault(reason, Counter())[job["job"]] += 1
    return [f"  {reason}: {_counted(kinds)}" for reason, kinds in kinds_by_reason.items()]


def _cost(cost: dict) -> str:
    parts = [f"cost: about {cost['hours']:.2g} h, {cost['gpu_hours']:.2g} h of them on a GPU"]
    if cost["unknown"]:
        parts.append(f"{cost['unknown']} jobs of unknown time (`snakemake predictions` tells more)")
    if cost["peak_bytes"]:
        parts.append(f"predicted peak {cost['peak_bytes'] / GIB:.2g} GiB")
    parts.append(f"disk {cost['disk_gib']} GiB")
    return "; ".join(parts)
