"""The terminal text of `rankwise status`."""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable

from rankwise.audit.status import BLOCKED, DONE, WAITING, StudyStatus
from rankwise.cli.plan_text import unkept
from rankwise.core.progress import FAILED, RUNNING, duration
from rankwise.core.units import GIB

STATES = (DONE, RUNNING, WAITING, BLOCKED, FAILED)
SILENT_S = 120  # a running job writes its file every 30 s at least
CLEAR = "\x1b[H\x1b[2J\x1b[3J"


def text(found: dict) -> str:
    """The state of a study: counts by kind, running and failed jobs, the time left, the GPUs."""
    totals: Counter = Counter()
    for counts in found["kinds"].values():
        totals.update(counts)
    lines = [f"{found['study']}: {totals[DONE]} of {sum(totals.values())} results are there"]
    lines += _table(found["kinds"])
    if found["statuses"]:
        ends = [f"{count} {status}" for status, count in found["statuses"].items()]
        lines.append(f"of those done: {', '.join(ends)}")
    lines += _section("running:", [_running(job) for job in found["running"]])
    lines += _section("failed:", [_failed(job) for job in found["failed"]])
    if totals[BLOCKED]:
        lines.append("blocked jobs need the result of a failed one, so they do not run")
    documents = found["documents"]
    lines.append(
        f"tables, figures and page: {documents['written']} of {documents['planned']} are written "
        "(`rankwise plan` says which are outdated)"
    )
    lines += unkept(found["unkept"])
    lines.append(_left(found["left"], totals))
    return "\n".join([*lines, *map(_gpu, found["gpus"])])


def _table(kinds: dict[str, dict[str, int]]) -> list[str]:
    """A row for each kind of job, with a column for each state that there is."""
    columns = [state for state in STATES if any(counts.get(state) for counts in kinds.values())]
    width = max(map(len, ["kind", *kinds]))
    rows = ["  ".join(["kind".ljust(width), *columns])]
    for kind, counts in kinds.items():
        numbers = [str(counts.get(state, 0)).rjust(len(state)) for state in columns]
        rows.append("  ".join([kind.ljust(width), *numbers]))
    return [f"  {row}" for row in rows]


def _section(head: str, lines: list[str]) -> list[str]:
    return [head, *(f"  {line}" for line in lines)] if lines else []


def _running(job: dict) -> str:
    numbers = job["numbers"]
    parts = [f"{job['kind']} {job['name']}: {duration(job['for_s'])}, {job['doing']}"]
    if "update" in numbers:
        parts.append(f"update {numbers['update']:,} of {numbers['updates']:,}")
    if "epoch" in numbers:
        parts.append(f"epoch {numbers['epoch']:.2f}")
    for name, words in (("train_loss_nats", "training"), ("selection_loss_nats", "selection")):
        if name in numbers:
            parts.append(f"{words} loss {numbers[name]:.4g}")
    if "updates_per_s" in numbers:
        parts.append(f"{numbers['updates_per_s']:.3g} updates/s")
    if "left_s" in numbers:
        parts.append(f"{duration(max(0, numbers['left_s'] - job['silent_s']))} left")
    if job["silent_s"] > SILENT_S:
        parts.append(f"on {job['host']}, no word for {duration(job['silent_s'])}")
    return ", ".join(parts) + _log(job)


def _failed(job: dict) -> str:
    ago = duration(job["silent_s"])
    return (
        f"{job['kind']} {job['name']}: {job['reason']} (while {job['doing']}, {ago} ago){_log(job)}"
    )


def _log(job: dict) -> str:
    return f"; log: {job['log']}" if job["log"] else ""


def _left(left: dict, totals: Counter) -> str:
    """The time left in words; as a lower bound where some jobs' time is not known."""
    if not totals[RUNNING] and not totals[WAITING]:
        return "nothing is left to run"
    more = ""
    if left["unknown"]:
        jobs = "1 job has" if left["unknown"] == 1 else f"{left['unknown']} jobs have"
        more = f"; {jobs} no time yet (`snakemake predictions` predicts trainings)"
    about = "at least" if left["unknown"] else "about"
    work = f"{about} {duration(left['work_s'])}"
    if left["unknown"] and not left["work_s"]:
        work = "not known"
    if left["wall_s"] is None:
        return f"nothing is running; time of what is left, one job after another: {work}{more}"
    if left["at_once"] == 1:
        return f"time left: {work}{more}"
    wall = work if work == "not known" else f"{about} {duration(left['wall_s'])}"
    return f"time left: {wall}, with {left['at_once']} jobs at once{more}"


def _gpu(gpu: dict) -> str:
    parts = []
    if gpu["busy_fraction"] is not None:
        parts.append(f"{gpu['busy_fraction']:.0%} busy")
    if gpu["used_bytes"] is not None:
        size = f"{gpu['memory_bytes'] / GIB:.1f}" if gpu["memory_bytes"] else "?"
        parts.append(f"{gpu['used_bytes'] / GIB:.1f} of {size} GiB in use")
    return f"{gpu['uuid']} ({gpu['name']}): {', '.join(parts) or 'its use is not known'}"


def watch(status: StudyStatus, seconds: float, shown: Callable[[dict], str]) -> None:
    """Print the state again and again, until nothing runs or waits, or Ctrl-C is pressed.

    Args:
        status: Of the study.
        seconds: From one look to the next.
        shown: What to print of a look.
    """
    try:
        while True:
            found = status.now()
            print(CLEAR if sys.stdout.isatty() else "", shown(found), sep="", flush=True)
            states: Counter = Counter()
            for counts in found["kinds"].values():
                states.update(counts)
            if not found["running"] and not states[WAITING]:
                return
            time.sleep(seconds)
    except KeyboardInterrupt:
        return


def line(found: dict) -> str:
    """One look as a line of JSON."""
    return json.dumps(found)
