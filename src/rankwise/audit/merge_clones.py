"""`rankwise collect`: results that other clones made for this clone's study, brought here.

A result comes if it answers the planned request. Of one that lies in several places the reproducible part must be the same in
all; where it is not nothing is copied, unless one place is preferred. Times never agree: the first place's are taken. What was
made from another input than the one that is taken does not come. Standard library only; Snakemake's own is in `carry.py`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rankwise.audit import rerun_plan
from rankwise.audit.import_results import Planned, carry, check_idle
from rankwise.core import config
from rankwise.core.compare import gap, machine, read, word
from rankwise.core.config import ConfigError
from rankwise.study.measurements import PREDICT, TIMED
from rankwise.study.outputs import selected
from rankwise.study.plan import FOLDERS, MEASUREMENTS, RESULTS, Cell, Plan, study_file

COMMAND = "rankwise collect"
PARTS = ("inputs", "search", "runs", "profiles")  # of a folder of results
NAMES = frozenset(
    {*FOLDERS, *MEASUREMENTS, PREDICT, "selected", "dataset", "model"}
)  # what results are called
ASKED = (
    *FOLDERS,
    *MEASUREMENTS,
)  # what a study asks for; the rest is made where something needs it
HERE = "this clone"


class Place(NamedTuple):
    """A folder of results, and what it is called in messages."""

    name: str
    results: Path

    def file(self, path: str) -> Path:
        """Where a planned result would lie."""
        return self.results / Path(path).relative_to(RESULTS)


class Found(NamedTuple):
    """What lies at a planned path: the places that have it, those that agree, and the one from which it is taken."""

    places: tuple[Place, ...] = ()
    taken: Place | None = None


class Survey:
    """What the places (this clone first) have of a study; looks at all, changes nothing.

    Raises:
        ValueError: a result cannot be read, or two disagree and neither is preferred.
    """

    def __init__(self, planned: dict[str, Planned], places: list[Place], preferred: Place | None):
        self.planned, self.places, self.preferred = planned, places, preferred
        self.stale: dict[Place, dict[str, list[str]]] = {
            place: {} for place in places
        }  # path -> why
        self.unlike: dict[Place, list[str]] = {
            place: [] for place in places
        }  # paths of what differs from what is taken
        self._refused: list[str] = []
        self.found = {path: self._one(path, job) for path, job in planned.items()}
        if self._refused:
            more = f"; {len(self._refused) - 1} more differ" if self._refused[1:] else ""
            raise ValueError(f"{self._refused[0]}{more}; nothing was copied")

    def _one(self, path: str, job: Planned) -> Found:
        sound = {
            place: stored for place in self.places if (stored := self._sound(place, path, job))
        }
        if not sound:
            return Found()
        taken = self.preferred if self.preferred in sound else next(iter(sound))
        if job.rule in TIMED:
            same = sound.get(self.places[0]) == sound[taken]
            return Found(tuple(sound), self.places[0] if same else taken)
        gaps = {
            place: found for place, stored in sound.items() if (found := gap(sound[taken], stored))
        }
        if gaps and taken is not self.preferred:
            other, differing = next(iter(gaps.items()))
            self._refused.append(
                _refusal(path, {place: sound[place] for place in (taken, other)}, differing)
            )
        for place in gaps:
            self.unlike[place].append(path)
        alike = tuple(place for place in sound if place not in gaps)
        return Found(alike, self.places[0] if self.places[0] in alike else taken)

    def _sound(self, place: Place, path: str, job: Planned) -> dict | None:
        """What a place has there, if it answers the planned request and was made from the inputs that are taken."""
        stored = read(place.file(path))
        if stored and stored["request"] != job.request:
            self.stale[place][path] = rerun_plan.differences(stored["request"], job.request)
        elif stored and not set(job.reads).isdisjoint(self.unlike[place]):
            self.unlike[place].append(path)
        else:
            return stored
        return None


def _refusal(path: str, both: dict[Place, dict], differing: tuple[str, object, object]) -> str:
    key, *values = differing
    said = zip(both.items(), values, strict=True)
    named = " but ".join(
        f"{word(value)} in {place.name} ({machine(stored)})" for (place, stored), value in said
    )
    ways = " or ".join(f"--prefer {'.' if place.name == HERE else place.name}" for place in both)
    return f"{path}: {key}: got {named}; allowed: one value: remove one of the two files, or {ways}"


def collect(
    folders: list[str],
    root: Path,
    study: str | None = None,
    prefer: str | None = None,
    dry_run: bool = False,
) -> dict:
    """Bring the study's results in `folders` (clones, or their results/) into the clone at `root`, and say what was found.

    Raises:
        ConfigError: the study or a folder is wrong.
        ValueError: results disagree, one cannot be read or copied, or Snakemake is at work here.
    """
    file = root / (study or "config/config.yaml")
    plan = Plan(
        config.read_yaml(file, str(study or "config/config.yaml")),
        root,
        study_file([file], root),
    )
    places = [Place(HERE, root / RESULTS), *_places(folders, root)]
    survey = Survey(dict(jobs(plan)), places, _preferred(prefer, places, root))
    if not dry_run:
        check_idle(root)
        taken = {
            path: found.taken.file(path) for path, found in survey.found.items() if found.taken
        }
        agreed = {path for path, found in survey.found.items() if len(found.places) > 1}
        carry(survey.planned, taken, agreed, root)
    return {"study": plan.file, "dry_run": dry_run, **_summary(survey)}


def jobs(plan: Plan) -> Iterator[tuple[str, Planned]]:
    """(path, job) of every result that a study plans; what is read comes before what reads it."""
    for kind, name in plan.inputs():
        corpus = plan.corpus(name) if kind == "model" else None
        reads = (plan.input_path("dataset", corpus),) if corpus else ()
        yield (
            plan.input_path(kind, name),
            Planned(
                "pretrain_model" if corpus else f"prepare_{kind}",
                plan.input_request(kind, name),
                reads,
            ),
        )
    yield from _measured(plan, "trial")
    for file, curve in {
        file: cell.curve for cell in plan.cells("train") for file in selected(plan, cell)
    }.items():
        request = plan.choice(curve)
        yield file, Planned("choose", request, tuple(one["result"] for one in request["trials"]))
    for measurement in ("train", *MEASUREMENTS, PREDICT):
        yield from _measured(plan, measurement)


def _measured(plan: Plan, measurement: str) -> Iterator[tuple[str, Planned]]:
    for cell in plan.cells(measurement):
        reads = _reads(plan, measurement, cell) if measurement in FOLDERS else ()
        yield (
            plan.path(measurement, cell),
            Planned(measurement, plan.request(measurement, cell), reads),
        )


def _reads(plan: Plan, measurement: str, cell: Cell) -> tuple[str, ...]:
    chosen = selected(plan, cell) if measurement == "train" else ()
    return plan.input_path("dataset", cell.dataset), plan.input_path("model", cell.model), *chosen


# Places ---------------------------------------------------------------------------------------------------------------


def _places(folders: list[str], root: Path) -> list[Place]:
    """Raises ConfigError where a folder has no results, lies in this clone, or is named twice."""
    found: dict[Path, Place] = {}
    own = root.resolve(), (root / RESULTS).resolve()
    for name in folders:
        results = _results("DIR", name)
        if any(results.is_relative_to(folder) for folder in own):
            raise ConfigError(
                COMMAND, "DIR", name, f"another clone, or its results; this one is {own[0]}"
            )
        if results in found:
            raise ConfigError(COMMAND, "DIR", name, f"each once; {found[results].name} is the same")
        found[results] = Place(name, results)
    return list(found.values())


def _results(key: str, name: str) -> Path:
    """The folder of results that a user names by itself or by its clone."""
    allowed = f"a clone of Rankwise, or its {RESULTS}/ folder, with {', '.join(PARTS[:-1])} or {PARTS[-1]} in it"
    try:
        folder = Path(name).resolve(strict=True)
    except (
        OSError,
        RuntimeError,
    ) as error:  # before Python 3.13, a loop of links is a RuntimeError
        why = getattr(error, "strerror", None) or "a loop of links"
        raise ConfigError(COMMAND, key, name, f"{allowed} ({why})") from None
    for results in (folder / RESULTS, folder):
        if any((results / part).is_dir() for part in PARTS):
            return results.resolve()
    if (folder / "config/methods.yaml").is_file():
        return (folder / RESULTS).resolve()  # a clone without results
    raise ConfigError(COMMAND, key, name, allowed)


def _preferred(name: str | None, places: list[Place], root: Path) -> Place | None:
    if name is None:
        return None
    if Path(name).is_dir() and Path(name).resolve() == root.resolve():
        return places[0]
    results = _results("--prefer", name)
    for place in places[1:]:
        if place.results == results:
            return place
    raise ConfigError(COMMAND, "--prefer", name, [".", *(place.name for place in places[1:])])


# What was found -------------------------------------------------------------------------------------------------------


def _summary(survey: Survey) -> dict:
    """By place what was `copied`, the `same`, `stale`, `unlike` or `unplanned`; of the study what is `missing`; `notes`."""
    taken = {path: found.taken for path, found in survey.found.items()}
    results = [path for path, job in survey.planned.items() if job.rule in ASKED]
    return {
        "planned": len(results),
        "missing": [path for path in results if not taken[path]],
        "timed": [
            path
            for path, found in survey.found.items()
            if survey.planned[path].rule in TIMED and found.places[1:]
        ],
        "places": [_of_place(survey, place) for place in survey.places],
        "notes": list(_notes(survey)),
    }


def _of_place(survey: Survey, place: Place) -> dict:
    taken = [path for path, found in survey.found.items() if found.taken == place]
    alike = [
        path
        for path, found in survey.found.items()
        if place in found.places and found.taken != place
    ]
    return {
        "name": place.name,
        "taken": taken,
        "same": [path for path in alike if survey.planned[path].rule not in TIMED],
        "stale": survey.stale[place],
        "unlike": survey.unlike[place],
        "unplanned": _unplanned(place, survey.planned),
    }


def _unplanned(place: Place, planned: dict[str, Planned]) -> int:
    """How many results lie there that the study does not plan."""
    files = (
        file
        for part in PARTS
        for file in (place.results / part).rglob("*.json")
        if file.stem in NAMES
    )
    return sum(
        f"{RESULTS}/{file.relative_to(place.results).as_posix()}" not in planned for file in files
    )


def _notes(survey: Survey) -> Iterator[str]:
    """Inputs that Snakemake will make, and with them what reads them, although that is there."""
    for path, job in survey.planned.items():
        if survey.found[path].taken or job.rule in (*ASKED, PREDICT):
            continue
        readers = [
            one
            for one, other in survey.planned.items()
            if path in other.reads and other.rule in ASKED
        ]
        there = [one for one in readers if survey.found[one].taken]
        if there and (len(there) < len(readers) or survey.places[0].file(path).is_file()):
            yield (
                f"{path} is in no place; when Snakemake makes it, it also makes the {len(there)} anew that are there and read "
                f"it. To keep them: snakemake {path}, then collect again"
            )
