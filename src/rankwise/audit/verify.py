"""`rankwise verify`: every file that is read again, compared with the digest that was recorded.

It reads the stores of the project, and of one study the links to its results, its tables and
figures; and the checkpoints and tokenised rows of all studies. Nothing is changed, unless damaged
results are to be set aside. Standard library only.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rankwise.audit import stored
from rankwise.audit.store_contents import problems_in
from rankwise.audit.store_plans import planned
from rankwise.core import content, documents, paths, result, sound, state_seal
from rankwise.core.store import Store
from rankwise.study import text_outputs
from rankwise.study.jobs import document_jobs, result_jobs
from rankwise.study.plan import Plan, read_plan

TOKENISED = paths.CACHE / "tokenised"  # as `data/tokenised.py` lays it out
HEAL = ".venv/bin/rankwise verify --heal --study {study}"
NO_STUDY = "rankwise store remove {place}"


class Problem(NamedTuple):
    """One thing that is not as it was written.

    Attributes:
        text: A sentence that names the file.
        command: What makes it anew, or takes it away.
        damaged: The result in a store that `heal` sets aside.
    """

    text: str
    command: str
    damaged: Path | None = None


def verify(root: Path, study: str | None = None, heal: bool = False) -> dict:
    """Compare every file with its recorded content.

    Args:
        root: The project's folder.
        study: The study's file, relative to `root`; config/config.yaml if None.
        heal: Set damaged results of the project's own store aside, so that Snakemake makes them
            anew.

    Returns:
        `study`: its file; `checked`: how many results, documents, checkpoints and folders of
        tokenised rows were read; `problems`: for each its `text`, and the `command` that mends it.

    Raises:
        ConfigError: The study is wrong.
        StoreError: A store is of another version.
    """
    plan = read_plan(root, study)
    checked = {"results": 0, "documents": 0, "checkpoints": 0, "tokenised": 0}
    problems = [*_of_stores(plan, checked), *_of_links(plan), *_of_documents(plan, checked)]
    problems += [*_of_checkpoints(plan, checked), *_of_tokenised(plan, checked)]
    rows = []
    for problem in problems:
        text = problem.text
        if heal and problem.damaged and problem.damaged.is_file():
            text = f"{text}; {sound.set_aside(problem.damaged, Store(root))}"
        rows.append({"text": text, "command": problem.command})
    return {"study": plan.file, "checked": checked, "problems": rows}


def _of_stores(plan: Plan, checked: dict[str, int]) -> Iterator[Problem]:
    commands = _Commands(plan)
    for folder in Store(plan.root).folders:
        found = stored.files(folder)
        checked["results"] += len(found.results)
        for text, damaged, is_of_data in problems_in(folder, found):
            command = ""
            if damaged:
                command = commands.of(damaged.relative_to(folder).as_posix())
            if is_of_data:  # planning reads results, and no weights that runs have kept
                command = f"{HEAL.format(study=plan.file)}; {command}"
            yield Problem(text, command, damaged)


class _Commands:
    """The commands that make results of the store anew.

    All studies of the project are planned once, and only if the study of the command line does not
    plan one of the results.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.jobs = {job.place: job for job in result_jobs(plan)}
        self.read_plan = functools.cache(functools.partial(read_plan, plan.root))

    @functools.cached_property
    def studies(self) -> dict[str, list[str]]:
        return planned(self.plan.root).studies

    def of(self, place: str) -> str:
        """The command that makes a result anew, or takes one away that no study plans."""
        if place in self.jobs:
            return text_outputs.command(self.plan, self.jobs[place].path)
        for study in self.studies.get(place, []):
            other = self.read_plan(study)
            return text_outputs.command(other, f"{other.results}/{place}")
        return NO_STUDY.format(place=place)


def _of_links(plan: Plan) -> Iterator[Problem]:
    """Links of the study that lead to another result than the planned one."""
    store = Store(plan.root)
    for job in result_jobs(plan):
        link = plan.root / job.path
        if not link.is_file():
            continue
        homes = [folder / job.place for folder in store.folders]
        if any(home.exists() and home.samefile(link) for home in homes):
            continue  # it was read as a result of the store
        wrong = sound.problem(link, job.digest)
        if wrong:
            yield Problem(f"{link}: {wrong}", text_outputs.command(plan, job.path))


def _of_documents(plan: Plan, checked: dict[str, int]) -> Iterator[Problem]:
    """Tables, figures and texts that are not as their jobs wrote them."""
    for job in document_jobs(plan):
        written = documents.made(job.request, plan.root).get("files", {})
        checked["documents"] += bool(written)
        for path, recorded in written.items():
            problem = recorded and content.difference(plan.root / path, recorded, plan.root)
            if problem:
                text = f"{path}: {problem}, as its job wrote it"
                yield Problem(text, text_outputs.command(plan, job.path))


def _of_checkpoints(plan: Plan, checked: dict[str, int]) -> Iterator[Problem]:
    for file in sorted((plan.root / paths.CHECKPOINTS).glob("*.pt")):
        checked["checkpoints"] += 1
        problem = state_seal.problem(file)
        if problem:
            text = f"{file}: {problem}; the training moves it aside and starts anew"
            yield Problem(text, f"rm {file}")


def _of_tokenised(plan: Plan, checked: dict[str, int]) -> Iterator[Problem]:
    for description in sorted((plan.root / TOKENISED).glob("*/tokenised.json")):
        checked["tokenised"] += 1
        rows = description.with_name("examples.arrow")
        try:
            recorded = result.read_json(description)["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            problem = f"{description}: it cannot be read"
        else:
            difference = content.difference(rows, recorded, plan.root)
            problem = difference and f"{rows}: {difference}"
        if problem:
            text = f"{problem}; the next job that needs the rows makes them anew"
            yield Problem(text, f"rm -r {description.parent}")
