"""Which studies of a project plan a result: what `rankwise store` lists, and what it may remove.

Standard library only.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from rankwise.core import paths
from rankwise.core.config import LIBRARY
from rankwise.core.paths import RESULTS
from rankwise.core.store import INPUTS, Store, cell_place
from rankwise.study.jobs import result_jobs
from rankwise.study.measurements import EVALUATE
from rankwise.study.plan import DEFAULT_STUDY, Plan, read_plan
from rankwise.study.settle import OWNER


class Planned(NamedTuple):
    """What the studies of a project plan.

    Attributes:
        studies: Place -> files of the studies that plan it.
        unknown: File of a study -> why nothing says which results it plans.
    """

    studies: dict[str, list[str]]
    unknown: dict[str, str]


def planned(root: Path) -> Planned:
    """The results that the studies of a project plan.

    Args:
        root: The project's folder.
    """
    root = root.resolve()  # a study's file is named relative to it
    studies: dict[str, list[str]] = defaultdict(list)
    unknown, folders = {}, set()
    for file in study_files(root):
        try:
            plan = read_plan(root, file)
            folders.add(plan.results)
            _check_sources(plan)
            places = [job.place for job in result_jobs(plan)]
        except (ValueError, OSError) as error:
            unknown[file] = str(error)
            continue
        for place in places:
            studies[place].append(file)
    for folder, file in _owners(root).items():
        if folder not in folders and file not in unknown:
            unknown[file] = (
                f"{folder}/{OWNER}: got {file}, which is not there, allowed: a study's file; if "
                f"you need the study no more, delete {folder}"
            )
    return Planned(dict(studies), unknown)


def study_files(root: Path) -> list[str]:
    """The files of a project's studies, relative to the project.

    These are the files in config/ that hold no entries, the study that is built if none is named,
    and studies elsewhere that have a folder in results/.
    """
    entries = {f"{kind}.yaml" for kind in LIBRARY}
    files = [file for file in sorted((root / "config").glob("*.yaml")) if file.name not in entries]
    names = [file.relative_to(root).as_posix() for file in files]
    names += [name for name in _owners(root).values() if (root / name).is_file()]
    if paths.find(root, DEFAULT_STUDY).is_file():
        names.append(DEFAULT_STUDY)
    return list(dict.fromkeys(names))


def _owners(root: Path) -> dict[str, str]:
    """Folder of a study, relative to the project -> the study's file that it names."""
    owners = {}
    for note in sorted((root / RESULTS).glob(f"*/{OWNER}")):
        try:
            file = json.loads(note.read_text(encoding="utf-8"))["file"]
        except (OSError, ValueError, KeyError, TypeError):  # only part of a file
            continue
        owners[note.parent.relative_to(root).as_posix()] = file
    return owners


def _check_sources(plan: Plan) -> None:
    """Check that the files which the study's inputs are read from are known.

    If not, the requests of all runs that read them, and so their places, are not known either. This
    matters only where the store has something that was made from an input of this name.

    Raises:
        ValueError: A file is not on this machine, and no prepared input says what it held.
    """
    _check_evaluations(plan)
    for kind, name in plan.inputs():
        entry = plan.dataset_entry(name) if kind == "dataset" else plan.model_entry(name)
        splits = entry.get("splits", {}).values() if "files" in entry else ()
        weights = entry.get("weights", {})
        has_unknown_split = any(split["sha256"] is None for split in splits)
        has_unknown_weights = "files" in weights and weights["contents"] is None
        if (has_unknown_split or has_unknown_weights) and _has_results(plan.root, kind, name):
            raise ValueError(
                f"{kind} {name}: its files are not on this machine, and its prepared inputs do not "
                "say what they held"
            )


def _check_evaluations(plan: Plan) -> None:
    """The same of the files that evaluations read."""
    for cell in plan.cells(EVALUATE):
        files = plan.evaluation_entry(cell).get("files", {})
        unknown = [use for use in ("test", "few_shot") if use in files and not files[use]["sha256"]]
        place = cell_place(EVALUATE, cell.names, "*")
        if unknown and Store(plan.root).find_all(place):
            raise ValueError(
                f"evaluation {cell.evaluation}: its files are not on this machine, and its entry "
                "does not say what they hold"
            )


def _has_results(root: Path, kind: str, name: str) -> bool:
    """Whether the store has an input of this name, or a run that reads one."""
    cells = name if kind == "model" else f"*/{name}"
    patterns = [f"{INPUTS}/{kind}s/{name}/*", *(f"{part}/{cells}/*" for part in ("runs", "search"))]
    return any(Store(root).find_all(pattern) for pattern in patterns)
