"""The terminal text of `rankwise report` and of a failed run: absent results, documents made."""

from rankwise.audit.partial_report import Report
from rankwise.study import partial

MAX_LINES = 20  # cells that failed, one a line


def text(report: Report) -> str:
    """The lines of a report: absent results, then what could not be made, then where the page is.

    Args:
        report: What was made.
    """
    lines = partial.sentences(report.absent, report.ended)
    failed = [one for one in report.absent["cells"] if one["status"] == "failed"]
    lines += [
        f"  failed: {one['measurement']} {one['title']}: {one['reason']} ({one['log']})"
        for one in failed[:MAX_LINES]
    ]
    if len(failed) > MAX_LINES:
        lines.append(f"  and {len(failed) - MAX_LINES} more, all on the page")
    if report.left_out:
        lines.append(f"Left out, because no result is there: {', '.join(report.left_out)}")
    for path, (sentence, log) in report.failed.items():
        lines.append(f"Not made: {path}: {sentence}{f' ({log})' if log else ''}")
    if report.page not in report.failed:
        count = report.planned - len(report.absent["cells"])
        lines.append(f"{report.page}: made from {count} of {report.planned} results")
    return "\n".join(lines)
