"""The end of a job, from its log.

Standard library only: the Snakefile imports this module.
"""

import re
from pathlib import Path

TAIL_BYTES = 65_536  # an exception's message lies in the last lines
LONGEST = 300  # characters of a sentence; a longer one is cut
TRACEBACK = "Traceback (most recent call last):"
# The line that ends a traceback: the exception's class, and its message if it has one.
EXCEPTION = re.compile(r"(?P<kind>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?")
# Messages of these exceptions are sentences of their own.
SENTENCES = ("ValueError", "RuntimeError", "SystemExit")
OWN = "rankwise."
SILENT = (
    "its log does not say why; a job that a signal killed says nothing, and the system kills jobs "
    "when host memory runs out"
)


def last_sentence(log: Path) -> str:
    """Why a job ended, in one line: the message of its last exception, else its log's last line.

    Args:
        log: The job's log. The first line is the job's title.

    Returns:
        The sentence, or one that says that the log holds none.
    """
    try:
        with log.open("rb") as stream:
            start = max(0, log.stat().st_size - TAIL_BYTES)
            stream.seek(start)
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return "it has no log"
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    sentence = _exception(lines) or (lines[-1].strip() if len(lines) > 1 or start else "")
    if len(sentence) > LONGEST:
        sentence = f"{sentence[:LONGEST]}..."
    return sentence or SILENT


def _exception(lines: list[str]) -> str:
    """The message of the last exception that was printed with a traceback; empty without one."""
    starts = [number for number, line in enumerate(lines) if line.strip() == TRACEBACK]
    if not starts:
        return ""
    for line in lines[starts[-1] + 1 :]:
        if line.startswith((" ", "\t")):  # a frame, or the code of one
            continue
        found = EXCEPTION.fullmatch(line)
        if not found:
            return line
        kind, message = found["kind"], found["message"]
        if not message:
            return kind
        is_sentence = kind in SENTENCES or kind.startswith(OWN)
        return message if is_sentence else f"{kind.rpartition('.')[2]}: {message}"
    return ""
