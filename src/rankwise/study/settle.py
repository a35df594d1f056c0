"""What a study has, settled before Snakemake looks at its files.

Snakemake decides by existence, by modification times and by its own records. The first is true for
results, because the path of a result holds the digest of its request. The others are not: a copy
changes times, and records can be lost. So planning

- refuses a study whose folder belongs to another study of the same name;
- links every planned result that the store has into the study's folder, and sets aside each one
  that is not as it was written, or answers another request (`core/sound.py`);
- gives all results one modification time, so that none is newer than what was made from it;
- marks each document that is not as planned (`core/documents.py`).

Standard library only: the Snakefile imports this module.
"""

import functools
import json
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rankwise.core import documents, provenance, result, sound
from rankwise.core.config import ConfigError, read_yaml
from rankwise.core.content import difference
from rankwise.core.input_files import recorded_files
from rankwise.core.store import TIME_NS, Store, StoreError, check_answers, link_result
from rankwise.core.store_parts import DAMAGED, beside, disagreement
from rankwise.study.jobs import PlannedJob, document_jobs, result_jobs
from rankwise.study.plan import Plan

OWNER = ".study.json"  # in a study's folder: the study's file


class Settled(NamedTuple):
    """The findings of planning.

    Attributes:
        fetched: Results that the store had and the study's folder had not.
        missing: Results that are in no store.
        outdated: Documents that are not as planned.
        current: Documents that are as planned.
    """

    fetched: list[PlannedJob]
    missing: list[PlannedJob]
    outdated: list[PlannedJob]
    current: list[PlannedJob]


def settle(plan: Plan) -> Settled:
    """Settle the files of a study, as the module's docstring says.

    Raises:
        ConfigError: Another study has this one's name.
        StoreError: A store, or a file in it, is not as it must be.
    """
    _check_owner(plan)
    fetched, missing = fetch(plan)
    outdated, current = [], []
    pending = {path for job in missing for path in job.outputs}
    sha256 = functools.cache(provenance.file_sha256)  # most files are read by several documents
    for job in document_jobs(plan):
        if _settle_document(job, plan.root, pending, sha256):
            current.append(job)
            continue
        outdated.append(job)
        pending.update(job.outputs)
    return Settled(fetched, missing, outdated, current)


# The study's folder -------------------------------------------------------------------------------


def _check_owner(plan: Plan) -> None:
    """Check that the study's folder is that of no other study, and write down whose it is.

    Raises:
        ConfigError: Another file, which still has a study of this name, has made the folder.
    """
    note = plan.root / plan.results / OWNER
    try:
        owner = json.loads(note.read_text(encoding="utf-8"))["file"]
    except (OSError, ValueError, KeyError, TypeError):  # not there, or only part of a file
        owner = None
    if owner == plan.file:
        return
    if owner is not None and _is_name_of(owner, plan):
        allowed = f"another name: {owner} has it already, and its files are in {plan.results}/"
        raise ConfigError(plan.file, "name", plan.study["name"], allowed)
    result.write_json(note, {"file": plan.file})


def _is_name_of(file: str, plan: Plan) -> bool:
    """Whether another file has a study of the plan's name."""
    other, own = plan.root / file, plan.root / plan.file
    if not other.is_file() or (own.is_file() and own.samefile(other)):
        return False
    try:
        return read_yaml(other, file).get("name") == plan.study["name"]
    except (ValueError, OSError, AttributeError):  # no study
        return False


# Results ------------------------------------------------------------------------------------------


def fetch(plan: Plan) -> tuple[list[PlannedJob], list[PlannedJob]]:
    """Link every planned result that the store has, and settle its time.

    Returns:
        The jobs whose results were linked now, and those whose results are in no store.

    Raises:
        StoreError: A store, or a file in it, is not as it must be.
    """
    store, known = Store(plan.root), sound.Known(plan.root)
    fetched, missing = [], []
    for job in result_jobs(plan):
        output = plan.root / job.path
        problem = _problem_of_input(known, plan.root) if job.prepares_input else known.problem
        if output.is_symlink() and output.exists():
            _settle_time(output)
            if problem(output, job.digest) is None:
                continue
        elif output.is_file():  # of a copy that followed the links
            _adopt(output, job, store)
        found = sound.find(store, job.place, problem)
        if found is None:
            output.unlink(missing_ok=True)  # a link to what is not there any more
            missing.append(job)
            continue
        link_result(found, check_answers(found, job.digest), output, plan.root)
        _settle_time(output)
        fetched.append(job)
    known.save()
    return fetched, missing


def _problem_of_input(known: sound.Known, root: Path) -> sound.Problem:
    """As `known.problem`; the files of a prepared input are compared with their recorded SHA-256.

    Inputs are few. What a run has kept is checked by the evaluation that reads it.
    """

    def problem(file: Path, digest: str) -> str | None:
        wrong = known.problem(file, digest)
        if wrong:
            return wrong
        folder = Path(os.path.realpath(file)).parent
        for name, recorded in recorded_files(result.read(file)).items():
            changed = difference(folder / name, recorded, root)
            if changed:
                return f"{name} beside it: {changed}"
        return None

    return problem


def _settle_time(output: Path) -> None:
    """Give a link, and the file that it leads to, the store's one modification time."""
    if output.lstat().st_mtime_ns != TIME_NS:
        os.utime(output, ns=(TIME_NS, TIME_NS), follow_symlinks=False)
    if output.stat().st_mtime_ns != TIME_NS:
        with suppress(OSError):  # another user's store, or a read-only disk
            os.utime(output, ns=(TIME_NS, TIME_NS))


def _adopt(output: Path, job: PlannedJob, store: Store) -> None:
    """Move a result that is a file of its own into the store.

    A prepared input without its data files is of no use; it is removed. A file that is not as it
    was written, or answers another request, is renamed.

    Raises:
        StoreError: The store has another result of the same request. Both stay.
    """
    problem = sound.problem(output, job.digest)
    if problem:
        aside = output.replace(beside(output, DAMAGED))
        print(f"{output}: {problem}; renamed to {aside.name}", file=sys.stderr, flush=True)
        return
    content = result.read(output)
    is_whole = all((output.parent / name).is_file() for name in recorded_files(content))
    with store.locked(job.digest):
        kept = store.find(job.place)
        if is_whole and kept is None:
            with store.part(job.place) as part:
                shutil.copytree(output.parent, part, dirs_exist_ok=True)
        problem = kept and disagreement(kept, output)
        if problem:
            raise StoreError(
                f"{output}: {problem}. Allowed: one result of one request; find out which is "
                "right, and delete the other one"
            )
    shutil.rmtree(output.parent)


# Documents ----------------------------------------------------------------------------------------


def _settle_document(
    job: PlannedJob, root: Path, pending: set[str], sha256: documents.Sha256
) -> bool:
    """Mark a document that is not as planned; otherwise let it be as new as what it is made from.

    Args:
        job: The job that makes it.
        root: The project's folder.
        pending: Files that are to be made first.
        sha256: Gives the SHA-256 of a file.

    Returns:
        Whether the document is as planned.
    """
    made = documents.made(job.request, root)
    wanted = documents.wanted(job.request, root, sha256)
    files = [root / path for path in job.outputs]
    is_there = all(file.is_file() for file in files)
    is_current = is_there and made == wanted and pending.isdisjoint(job.request["reads"])
    note = root / documents.planned_file(*job.request["document"])
    # What it was made from is part of the note, since Snakemake takes a newer file with the content
    # that it recorded for the same file.
    content = wanted if is_current else {**wanted, "made": made}
    result.write_json(note, content, sync=False)  # every planning writes it anew
    if not is_current:
        return False
    os.utime(note, ns=(TIME_NS, TIME_NS))
    newest_ns = max((_time_ns(root / path) for path in job.request["reads"]), default=0)
    if min(map(_time_ns, files)) < newest_ns:
        time_ns = max(time.time_ns(), newest_ns)  # another machine's clock may be ahead
        for file in files:
            os.utime(file, ns=(time_ns, time_ns))
    return True


def _time_ns(file: Path) -> int:
    return max(file.stat().st_mtime_ns, file.lstat().st_mtime_ns)
