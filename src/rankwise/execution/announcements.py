"""Snakemake's lines on a job in the terminal: one or two when it starts or fails.

By itself Snakemake prints every input, output and parameter of a job, and again as the reason to
run it. For the page of a study with 3,000 runs these are 6,000 paths. Snakemake's own log, in
`.snakemake/log`, still has all of that, and so has the terminal with `--printshellcmds`.

Standard library only. `snakemake_adapter.announce_briefly` puts the formatter in place.
"""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rankwise.core.job_logs import last_sentence

# Messages that tell nothing to people who run a study.
NOISE = (
    "Select jobs to execute...",
    "RuleException:\nCalledProcessError in file ",  # the job's command; its failure follows
)
LONGEST_REASON = 200  # characters


class Brief(logging.Formatter):
    """Formats messages about jobs; leaves all others to Snakemake's formatter.

    Args:
        usual: Snakemake's formatter.
        titles: First output of a job -> what the job computes, in a few words.
        is_dry_run: Whether no job runs, so that the reasons matter and the logs do not. Snakemake
            knows it only after the formatter is in place.
    """

    def __init__(
        self,
        usual: logging.Formatter,
        titles: Mapping[str, str],
        is_dry_run: Callable[[], bool],
    ):
        super().__init__()
        self.usual, self.titles, self.is_dry_run = usual, titles, is_dry_run

    def format(self, record: logging.LogRecord) -> str:
        """The text of a message; an empty one is not printed."""
        event = getattr(record, "event", None)
        match getattr(event, "name", None):
            case "JOB_INFO":
                return self._started(vars(record))
            case "JOB_ERROR":
                return self._failed(vars(record))
            case "JOB_FINISHED" | "GROUP_ERROR":  # the progress, and the jobs of the group, follow
                return ""
            case "PROGRESS":
                return f"{_now()} {record.done} of {record.total} steps done"
        if str(record.msg).startswith(NOISE):
            return ""
        return self.usual.format(record)

    def _started(self, job: dict) -> str:
        title = self._title(job)
        name = f"rule {job['rule_name']}: {title}"
        if self.is_dry_run():
            return f"{name}\n    {short_reason(job['reason'])}"
        log = f"\n    log: {job['log'][0]}" if job["log"] else ""
        return f"{_now()} {name}{log}"

    def _failed(self, job: dict) -> str:
        logs = [path for path in job["log"] if Path(path).is_file()]
        reason = last_sentence(Path(logs[0])) if logs else "it has no log"
        where = f" ({logs[0]})" if logs else ""
        line = f"{_now()} failed: rule {job['rule_name']}: {self._title(job)}: {reason}{where}"
        if getattr(self.usual, "show_failed_logs", False):
            texts = [Path(path).read_text(encoding="utf-8", errors="replace") for path in logs]
            return "\n".join([line, *texts])
        return line

    def _title(self, job: dict) -> str:
        """The title of a job; without one, its wildcards or its first output."""
        first = job["output"][0] if job["output"] else ""
        if first in self.titles:
            return self.titles[first]
        wildcards = job.get("wildcards") or {}
        return ", ".join(map(str, wildcards.values())) or first


def short_reason(reason: str) -> str:
    """A reason of Snakemake's with one path of each list, and the number of the others."""
    parts = []
    for part in reason.split("; "):
        head, separator, files = part.partition(": ")
        paths = files.split(", ")
        others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        text = f"{head}{separator}{min(paths)}"
        if len(text) > LONGEST_REASON:
            text = f"{text[:LONGEST_REASON]}..."
        parts.append(text + others)
    return "; ".join(parts)


def _now() -> str:
    return time.strftime("[%H:%M:%S]")
