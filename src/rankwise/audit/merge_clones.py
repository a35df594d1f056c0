"""`rankwise collect`: bring results that other clones made for this clone's study into this clone.

A result is brought if it answers the planned request. If it exists in several places, its
reproducible part must be the same in all of them; otherwise nothing is copied, unless one place is
preferred. Measured times never agree, so those of the first place are taken. A result that was made
from another input than the one that is taken is not brought. Standard library only, except for
Snakemake's records (`execution/snakemake_adapter.py`).
"""

from collections.abc import Iterator
from pathlib import Path

from rankwise.audit.import_results import import_results
from rankwise.audit.survey import HERE, Place, Survey
from rankwise.core.config import ConfigError
from rankwise.execution.snakemake_adapter import check_idle
from rankwise.study.jobs import PlannedJob, result_jobs
from rankwise.study.measurements import PREDICT, TIMED
from rankwise.study.plan import FOLDERS, MEASUREMENTS, RESULTS, read_plan

COMMAND = "rankwise collect"
PARTS = ("inputs", "search", "runs", "profiles")  # subfolders of a folder of results
# Names of the JSON files that are results.
NAMES = frozenset({*FOLDERS, *MEASUREMENTS, PREDICT, "selected", "dataset", "model"})
# What a study asks for. Other results are made only because one of these needs them.
REQUESTED = (*FOLDERS, *MEASUREMENTS)


def collect(
    folders: list[str],
    root: Path,
    study: str | None = None,
    prefer: str | None = None,
    dry_run: bool = False,
) -> dict:
    """Bring the study's results in other clones into the clone at `root`.

    Args:
        folders: Other clones, or their results/ folders.
        root: The project's folder.
        study: The study's file, relative to `root`; config/config.yaml if None.
        prefer: The folder whose results are taken where places disagree; `.` or `root` is this
            clone.
        dry_run: Copy nothing.

    Returns:
        What was found, by place (`places`) and for the study: how many results are `planned`, which
        are `missing`, which `timed` ones are in several places, and `notes`.

    Raises:
        ConfigError: the study or a folder is wrong.
        ValueError: results disagree, one cannot be read or copied, or Snakemake is at work here.
    """
    places = [Place(HERE, root / RESULTS), *_places(folders, root)]
    # Another clone may have read files that are not on this machine.
    plan = read_plan(root, study, [place.results for place in places])
    planned = {job.path: job for job in result_jobs(plan)}
    survey = Survey(planned, places, _preferred(prefer, places, root))
    if not dry_run:
        check_idle(root)
        taken, agreed = {}, set()
        for path, found in survey.found.items():
            if found.taken:
                taken[path] = found.taken.file(path)
            if len(found.places) > 1:
                agreed.add(path)
        import_results(planned, taken, agreed, root)
    return {"study": plan.file, "dry_run": dry_run, **_summary(survey)}


# Places -------------------------------------------------------------------------------------------


def _places(folders: list[str], root: Path) -> list[Place]:
    """The places that a user names.

    Raises:
        ConfigError: a folder has no results, is inside this clone, or is named twice.
    """
    place_by_folder: dict[Path, Place] = {}
    this_clone = root.resolve()
    # The clone's results may be a link to another disk.
    own_folders = this_clone, (root / RESULTS).resolve()
    for name in folders:
        results = _results_folder("DIR", name)
        if any(results.is_relative_to(folder) for folder in own_folders):
            allowed = f"another clone, or its results; this one is {this_clone}"
            raise ConfigError(COMMAND, "DIR", name, allowed)
        if results in place_by_folder:
            allowed = f"each once; {place_by_folder[results].name} is the same"
            raise ConfigError(COMMAND, "DIR", name, allowed)
        place_by_folder[results] = Place(name, results)
    return list(place_by_folder.values())


def _results_folder(key: str, name: str) -> Path:
    """The folder of results that a user names, by itself or by its clone."""
    parts = f"{', '.join(PARTS[:-1])} or {PARTS[-1]}"
    allowed = f"a clone of Rankwise, or its {RESULTS}/ folder, with {parts} in it"
    try:
        folder = Path(name).resolve(strict=True)
    except (
        OSError,
        RuntimeError,
    ) as error:  # before Python 3.13, a loop of links is a RuntimeError
        reason = getattr(error, "strerror", None) or "a loop of links"
        raise ConfigError(COMMAND, key, name, f"{allowed} ({reason})") from None
    for results in (folder / RESULTS, folder):
        if any((results / part).is_dir() for part in PARTS):
            return results.resolve()
    if (folder / "config/methods.yaml").is_file():
        return (folder / RESULTS).resolve()  # a clone that has no results yet
    raise ConfigError(COMMAND, key, name, allowed)


def _preferred(name: str | None, places: list[Place], root: Path) -> Place | None:
    """The place that `--prefer` names.

    Raises:
        ConfigError: it is none of the places.
    """
    if name is None:
        return None
    if Path(name).is_dir() and Path(name).resolve() == root.resolve():
        return places[0]
    results = _results_folder("--prefer", name)
    for place in places[1:]:
        if place.results == results:
            return place
    raise ConfigError(COMMAND, "--prefer", name, [".", *(place.name for place in places[1:])])


# What was found -----------------------------------------------------------------------------------


def _summary(survey: Survey) -> dict:
    """What `collect` returns of a survey."""
    requested = [path for path, job in survey.planned.items() if job.rule in REQUESTED]
    timed = []
    for path, found in survey.found.items():
        if survey.planned[path].rule in TIMED and len(found.places) > 1:
            timed.append(path)
    return {
        "planned": len(requested),
        "missing": [path for path in requested if not survey.found[path].taken],
        "timed": timed,
        "places": [_place_summary(survey, place) for place in survey.places],
        "notes": list(_notes(survey)),
    }


def _place_summary(survey: Survey, place: Place) -> dict:
    """Paths of one place by what became of them; `unplanned` is a number."""
    taken, same = [], []
    for path, found in survey.found.items():
        if found.taken == place:
            taken.append(path)
        elif place in found.places and survey.planned[path].rule not in TIMED:
            same.append(path)
    return {
        "name": place.name,
        "taken": taken,
        "same": same,
        "stale": survey.stale[place],
        "unlike": survey.unlike[place],
        "unplanned": _count_unplanned(place, survey.planned),
    }


def _count_unplanned(place: Place, planned: dict[str, PlannedJob]) -> int:
    """How many results a place has that the study does not plan."""
    count = 0
    for part in PARTS:
        for file in (place.results / part).rglob("*.json"):
            path = f"{RESULTS}/{file.relative_to(place.results).as_posix()}"
            count += file.stem in NAMES and path not in planned
    return count


def _notes(survey: Survey) -> Iterator[str]:
    """Inputs found in no place.

    Snakemake will make them, and rerun results that read them and already exist.
    """
    for path, job in survey.planned.items():
        if survey.found[path].taken or job.rule in (*REQUESTED, PREDICT):
            continue
        readers = [
            reader.path
            for reader in survey.planned.values()
            if path in reader.inputs and reader.rule in REQUESTED
        ]
        existing = [reader for reader in readers if survey.found[reader].taken]
        if not existing:
            continue
        # Snakemake makes the input only if a reader is missing, or if an outdated input is here.
        if len(existing) < len(readers) or survey.places[0].file(path).is_file():
            yield (
                f"{path} is in no place; when Snakemake makes it, it also reruns the "
                f"{len(existing)} existing results that read it. To keep them: snakemake {path}, "
                "then collect again"
            )
