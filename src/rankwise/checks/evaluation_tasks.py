"""What evaluations lack before their jobs start: the harness, files, the hub, enough examples.

Each problem is one sentence that names the file, the key, what was got and what is allowed.
"""

import difflib
import functools
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

from rankwise.core import content
from rankwise.data import evaluation_documents, sources
from rankwise.study import evaluations
from rankwise.study.jobs import PlannedJob
from rankwise.study.measurements import EVALUATE
from rankwise.study.plan import Plan

TASK_LINE = re.compile(r"""^ *(?:- )?(?:task|group): *["']?(\w[\w.-]*)""", re.MULTILINE)


def entries(jobs: list[PlannedJob], plan: Plan) -> dict[str, dict]:
    """The evaluations of jobs: name -> resolved entry, without the digests of files.

    Args:
        jobs: Jobs of the study; only evaluations are looked at.
        plan: The plan of the study.
    """
    cells = [job.cell for job in jobs if job.kind == EVALUATE]
    return {cell.evaluation: plan.evaluations.cells[cell] for cell in cells}


def harness(jobs: list[PlannedJob], plan: Plan) -> list[str]:
    """One line if a job needs lm-evaluation-harness and it is not installed.

    Args:
        jobs: The jobs that would run.
        plan: The plan of the study.
    """
    kinds = {entry["kind"] for entry in entries(jobs, plan).values()}
    why = evaluations.missing_harness() if evaluations.HARNESS in kinds else None
    return [f"{plan.file}: evaluate: {why}"] if why else []


def hub(jobs: list[PlannedJob], plan: Plan) -> list[str]:
    """One line for each evaluation whose dataset is on a hub that does not answer.

    Args:
        jobs: The jobs that would run.
        plan: The plan of the study.
    """
    endpoint = sources.hub_endpoint()
    of_hub = {name: entry for name, entry in entries(jobs, plan).items() if "hub" in entry}
    reason = sources.unreachable(endpoint) if endpoint and of_hub else None
    if not reason:
        return []
    return [
        f"{evaluations.FILE}: {name}.hub: {entry['hub']['repo']} cannot be fetched, {endpoint} is "
        f"unreachable: {reason}; allowed: a reachable hub, or an evaluation with files"
        for name, entry in of_hub.items()
    ]


def files(jobs: list[PlannedJob], plan: Plan) -> list[str]:
    """The mistakes in the files of evaluations.

    Args:
        jobs: The jobs that would run.
        plan: The plan of the study.
    """
    found = []
    for name, entry in entries(jobs, plan).items():
        if "files" in entry:
            found += _file_problems(name, entry)
        elif "hub" in entry:
            found += _task_problems(name, entry["task"])
    return found


def _task_problems(name: str, task: str) -> Iterator[str]:
    """A line if the installed harness has no task of this name; its files are read as text."""
    spec = importlib.util.find_spec(evaluations.HARNESS_PACKAGE)
    if spec is None:
        return  # `harness` says so
    folder = Path(spec.origin).parent / "tasks"
    if (folder / task).is_dir():  # a task's own folder; jobs look closer
        return
    named = _task_names(folder)
    if task not in named:
        nearest = difflib.get_close_matches(task, named, n=1)
        hint = f" (nearest: {nearest[0]!r})" if nearest else ""
        allowed = f"a task of the installed lm-evaluation-harness{hint}"
        yield f"{evaluations.FILE}: {name}.task: got {task!r}, allowed: {allowed}"


@functools.cache
def _task_names(folder: Path) -> frozenset[str]:
    """The tasks and groups that the harness's files name."""
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in folder.rglob("*.yaml"))
    return frozenset(name for text in texts for name in TASK_LINE.findall(text))


def _file_problems(name: str, entry: dict) -> Iterator[str]:
    given, where = entry["files"], f"{evaluations.FILE}: {name}.files"
    folder = os.path.expandvars(given["folder"])
    if "$" in folder:
        allowed = "a folder; set the environment variable in it first"
        yield f"{where}.folder: got {given['folder']}, allowed: {allowed}"
        return
    uses = ["test", "few_shot"] if entry.get("few_shot") else ["test"]
    documents = {}
    for use in uses:
        file, key = Path(folder) / given[use]["path"], f"{where}.{use}"
        if not file.is_file():
            yield f"{key}: got {file}, allowed: a file that is there"
            continue
        expected, sha256 = given[use].get("sha256"), content.sha256(file)
        if expected and sha256 != expected:
            yield f"{key}: sha256 of {file} is {sha256}, allowed: {expected}"
            continue
        try:
            documents[use] = evaluation_documents.read(file, given["form"], use)
        except (ValueError, OSError) as error:
            yield f"{key}: {error}"
    if len(documents) == 2:
        yield from _too_few(name, entry, documents)


def _too_few(name: str, entry: dict, documents: dict[str, list[dict]]) -> Iterator[str]:
    """A line if the prompt asks for more examples than its file has, of the same part."""
    shots: dict[str, int] = {document.get("part", ""): 0 for document in documents["test"]}
    for document in documents["few_shot"]:
        part = document.get("part", "")
        shots[part] = shots.get(part, 0) + 1
    part = min(shots, key=shots.get)
    if shots[part] < entry["few_shot"]:
        of_part = f" of {part}" if part else ""
        yield (
            f"{evaluations.FILE}: {name}.few_shot: got {entry['few_shot']}, allowed: at most "
            f"{shots[part]}, the examples{of_part} in {entry['files']['few_shot']['path']}"
        )
