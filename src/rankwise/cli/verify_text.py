"""The terminal text of `rankwise verify`."""

from rankwise.core.words import counted


def text(answer: dict) -> str:
    """Counts of files read, and two lines for each mistake: the sentence and the command."""
    checked = answer["checked"]
    parts = [
        counted(checked["results"], "result"),
        f"{counted(checked['documents'], 'table')}, figures and texts of {answer['study']}",
        counted(checked["checkpoints"], "checkpoint"),
        f"{counted(checked['tokenised'], 'folder')} of tokenised rows",
    ]
    problems = answer["problems"]
    verdict = counted(len(problems), "problem") if problems else "all as they were written"
    lines = [f"{', '.join(parts)}: {verdict}"]
    for problem in problems:
        lines.append(f"  {problem['text']}")
        if problem["command"]:
            lines.append(f"    {problem['command']}")
    return "\n".join(lines)
