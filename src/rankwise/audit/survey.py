"""What each of several clones has of a study's results, and whether they agree.

Standard library only.
"""

from pathlib import Path
from typing import NamedTuple

from rankwise.audit.request_differences import differences
from rankwise.core.compare import Difference, machine, read, result_difference, shown
from rankwise.study.jobs import PlannedJob
from rankwise.study.measurements import TIMED
from rankwise.study.plan import RESULTS

HERE = "this clone"


class Place(NamedTuple):
    """A folder of results, and its name in messages."""

    name: str
    results: Path

    def file(self, path: str) -> Path:
        """The file of a planned result in this place."""
        return self.results / Path(path).relative_to(RESULTS)


class Found(NamedTuple):
    """Which places have a planned result, and agree on it, and the place that it is taken from."""

    places: tuple[Place, ...] = ()
    taken: Place | None = None


class Survey:
    """What each place has of a study. It reads all results and changes nothing.

    Args:
        planned: Path -> job of every result of the study, in the order of `result_jobs`.
        places: The places to look in; this clone is the first.
        preferred: The place whose results are taken where places disagree, or None.

    Attributes:
        found: Path -> the places that have the result.
        stale: Place -> path -> why the result there answers another request than the planned one.
        unlike: Place -> paths of results that differ from the one that is taken.

    Raises:
        ValueError: a result cannot be read, or two disagree and neither is in the preferred place.
    """

    def __init__(
        self, planned: dict[str, PlannedJob], places: list[Place], preferred: Place | None
    ):
        self.planned, self.places, self.preferred = planned, places, preferred
        self.stale: dict[Place, dict[str, list[str]]] = {place: {} for place in places}
        self.unlike: dict[Place, list[str]] = {place: [] for place in places}
        self._disagreements: list[str] = []
        # In the order of the plan: whether a result may be taken depends on the inputs that were
        # taken.
        self.found = {path: self._look_for(job) for path, job in planned.items()}
        if self._disagreements:
            first, *others = self._disagreements
            more = f"; {len(others)} more differ" if others else ""
            raise ValueError(f"{first}{more}; nothing was copied")

    def _look_for(self, job: PlannedJob) -> Found:
        """Find one planned result in all places."""
        results_by_place: dict[Place, dict] = {}
        for place in self.places:
            stored = self._usable(place, job)
            if stored:
                results_by_place[place] = stored
        if not results_by_place:
            return Found()
        taken = next(iter(results_by_place))
        if self.preferred in results_by_place:
            taken = self.preferred
        if job.rule in TIMED:
            return self._timed(results_by_place, taken)
        return self._agreed(job, results_by_place, taken)

    def _usable(self, place: Place, job: PlannedJob) -> dict | None:
        """The result in one place, if it can be taken.

        It must answer the planned request and be made from the inputs that are taken.
        """
        stored = read(place.file(job.path))
        if not stored:
            return None
        if stored["request"] != job.request:
            self.stale[place][job.path] = differences(stored["request"], job.request)
            return None
        if not set(job.inputs).isdisjoint(self.unlike[place]):
            self.unlike[place].append(job.path)
            return None
        return stored

    def _timed(self, results_by_place: dict[Place, dict], taken: Place) -> Found:
        """A result that measures times.

        No place agrees with another, so all of them count as having it.
        """
        here = self.places[0]
        same_as_here = results_by_place.get(here) == results_by_place[taken]
        return Found(tuple(results_by_place), here if same_as_here else taken)

    def _agreed(self, job: PlannedJob, results_by_place: dict[Place, dict], taken: Place) -> Found:
        """A reproducible result: the places that agree with the one it is taken from."""
        difference_by_place: dict[Place, Difference] = {}
        for place, stored in results_by_place.items():
            difference = result_difference(results_by_place[taken], stored)
            if difference is not None:
                difference_by_place[place] = difference
                self.unlike[place].append(job.path)
        if difference_by_place and taken is not self.preferred:
            other, difference = next(iter(difference_by_place.items()))
            pair = {place: results_by_place[place] for place in (taken, other)}
            self._disagreements.append(_disagreement(job.path, pair, difference))
        agreeing = tuple(place for place in results_by_place if place not in difference_by_place)
        here = self.places[0]
        return Found(agreeing, here if here in agreeing else taken)


def _disagreement(path: str, pair: dict[Place, dict], difference: Difference) -> str:
    """What the user is told of two results that differ."""
    values = []
    values_and_results = zip((difference.first, difference.second), pair.items(), strict=True)
    for value, (place, stored) in values_and_results:
        values.append(f"{shown(value)} in {place.name} ({machine(stored)})")
    preferences = [f"--prefer {'.' if place.name == HERE else place.name}" for place in pair]
    return (
        f"{path}: {difference.key}: got {' but '.join(values)}; allowed: one value: "
        f"remove one of the two files, or {' or '.join(preferences)}"
    )
