"""The results of a study as data frames, for notebooks and scripts.

    import rankwise
    study = rankwise.load("results/demo")
    study.runs, study.curves, study.ledgers

The frames are made from the results themselves, by the code that makes the study's tables, so they
need no table to be there. A frame never has two results of one cell. If the folder has several,
because the study was edited, that of the study as it is now is taken; if none is, the folder is
refused.
"""

import difflib
import functools
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from rankwise.analysis import evaluations, evidence, tables, tidy
from rankwise.analysis.scores import groups
from rankwise.core import store
from rankwise.core.config import ConfigError
from rankwise.study.grids import VARIANT_MARK
from rankwise.study.measurements import EVALUATE
from rankwise.study.plan import MEASUREMENTS, RESULTS, Plan, read_plan
from rankwise.study.settle import OWNER


def load(folder: str | Path) -> "StudyResults":
    """The results of one study.

    Args:
        folder: The study's folder: `results/demo`, or `results` for the paper study.

    Raises:
        ValueError: There is no such folder, or it has no results; the message says which have.
    """
    path = Path(folder)
    if not _has_results(path):
        studies = _studies_near(path)
        allowed = ", ".join(studies) or f"a folder of a study, such as {RESULTS}/demo"
        nearest = difflib.get_close_matches(str(path), studies, n=1)
        hint = f" (nearest: {nearest[0]!r})" if nearest else ""
        raise ValueError(f"rankwise.load: got {str(folder)!r}, allowed: {allowed}{hint}")
    return StudyResults(path)


class StudyResults:
    """Data frames of a study; each is made when it is first asked for.

    Args:
        folder: The study's folder.

    Attributes:
        folder: As in the arguments.
    """

    FRAMES = (
        "runs",
        "history",
        "examples",
        "curves",
        "evaluations",
        "evaluation_curves",
        "ledgers",
    )

    def __init__(self, folder: Path):
        self.folder = folder

    def __repr__(self) -> str:
        counts = [f"{len(self._results('train'))} training runs"]
        if evaluated := self._results(EVALUATE):
            counts.append(f"{len(evaluated)} evaluations")
        counts += [
            f"{len(found)} {name}" for name in MEASUREMENTS if (found := self._results(name))
        ]
        return f"<results of {self.folder}: {', '.join(counts)}>"

    def __getattr__(self, name: str) -> object:
        raise AttributeError(_message(str(self.folder), name, [*self.FRAMES, "profile", "table"]))

    @functools.cached_property
    def runs(self) -> pd.DataFrame:
        """One row for each training run: cell, status, metrics, costs and settings."""
        return self._listed("train", tidy.collect)

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """One row for each evaluation of a training run: losses by update, and what it observed."""
        return self._listed("train", lambda planned: tidy.listed(planned, "history"))

    @functools.cached_property
    def examples(self) -> pd.DataFrame:
        """One row for each example of the reported split and each run that ended well."""
        return self._listed("train", tidy.examples)

    @functools.cached_property
    def curves(self) -> pd.DataFrame:
        """One row for each method and rank: its metric over seeds and examples, and an interval."""
        return evidence.estimates(groups(self.runs, self.examples))

    @functools.cached_property
    def evaluations(self) -> pd.DataFrame:
        """One row for each run, evaluation and metric, and one for each run and mean."""
        return self._listed(
            EVALUATE, lambda planned: evaluations.collect(planned, *self._asked(planned))
        )

    @functools.cached_property
    def evaluation_curves(self) -> pd.DataFrame:
        """One row for each method, rank and evaluation: its score, with an interval."""
        return self._listed(
            EVALUATE,
            lambda planned: evaluations.summary(evaluations.groups(planned, *self._asked(planned))),
        )

    @property
    def ledgers(self) -> pd.DataFrame:
        """One row for each memory ledger: bytes by kind at the peak, predicted and measured."""
        return self.profile("ledger")

    @functools.cache  # noqa: B019 - lives as long as the study
    def profile(self, measurement: str) -> pd.DataFrame:
        """One row for each profile of a measurement.

        Args:
            measurement: `memory`, `flops`, `forward`, `ledger`, `fits` or `throughput`.

        Raises:
            ValueError: There is no such measurement.
        """
        if measurement not in MEASUREMENTS:
            raise ValueError(_message(f"{self.folder}.profile", measurement, list(MEASUREMENTS)))
        return self._listed(measurement, tidy.collect)

    def table(self, name: str) -> pd.DataFrame:
        """A table that the study has made, as its file has it.

        Args:
            name: `summary`, `comparisons`, ...

        Raises:
            ValueError: There is no such table; the message names those that are there.
        """
        place = self.folder / "tables"
        file = place / f"{name}.csv"
        if file.is_file():
            return tables.read(file)
        made = sorted(path.stem for path in place.glob("*.csv"))
        raise ValueError(_message(f"{place}", name, made))

    # Results --------------------------------------------------------------------------------------

    def _listed(
        self, measurement: str, make: Callable[[list[tidy.Planned]], pd.DataFrame]
    ) -> pd.DataFrame:
        return make(self._results(measurement))

    @functools.cache  # noqa: B019 - lives as long as the study
    def _results(self, measurement: str) -> list[tidy.Planned]:
        """One result for each cell of a measurement, in the study's order where that is known."""
        found, plan = _found(self.folder, measurement), self._plan
        if plan is None:
            return [_only(cell, files) for cell, files in sorted(found.items())]
        planned = {}
        for cell in plan.cells(measurement):
            planned[cell.folder] = plan.root / plan.path(measurement, cell)
        chosen, older = [], 0
        for cell, path in planned.items():
            files = found.pop(cell, [])
            is_there = path.is_file()
            if is_there or files:
                older += not is_there
                chosen.append(_planned(cell, path) if is_there else _only(cell, files))
        self._warn(plan.file, measurement, older, list(found))
        return chosen

    def _warn(self, file: str, measurement: str, older: int, dropped: list[str]) -> None:
        """Warn of results that the study, as it is now in `file`, would not have.

        Args:
            file: The study's file.
            measurement: `train`, `evaluate` or a profile's.
            older: How many results answer an older request.
            dropped: Cells that the study no longer has.
        """
        if older:
            warnings.warn(
                f"{older} results ({measurement}) in {self.folder} are not those that {file} asks "
                f"for now; `rankwise plan --study {file}` says why",
                stacklevel=5,
            )
        if dropped:
            warnings.warn(
                f"left out: {len(dropped)} cells ({measurement}) that {file} no longer has, such "
                f"as {dropped[0]}",
                stacklevel=5,
            )

    def _asked(self, planned: list[tidy.Planned]) -> tuple[dict[str, str], dict[str, list[str]]]:
        """The main metric of each evaluation, and the evaluations of each mean.

        Without the study, the metrics come from the requests of the results, and no mean is known.
        """
        if self._plan is not None:
            return self._plan.evaluations.main_metrics(), self._plan.evaluations.means
        metrics = {}
        for cell, stored in tidy.read_results(planned):
            metrics[cell[evaluations.NAME]] = stored["request"]["evaluation"]["metric"]
        return metrics, {}

    @functools.cached_property
    def _plan(self) -> Plan | None:
        """The plan of the study, if its file and entries are there and it is this folder's."""
        owner = self.folder / OWNER
        absolute = self.folder.absolute()
        inside = [one for one in (absolute, absolute.parent) if one.name == RESULTS]
        if not inside or not owner.is_file():
            return None
        project = inside[0].parent
        try:
            plan = read_plan(project, json.loads(owner.read_text(encoding="utf-8"))["file"])
        except ConfigError:
            return None
        return plan if project / plan.results == absolute else None


def _folder_of(folder: Path, measurement: str) -> Path:
    return folder / store.FOLDERS.get(measurement, store.PROFILES)


def _found(folder: Path, measurement: str) -> dict[str, list[Path]]:
    """Cell, as paths name it -> its results in a study's folder."""
    found: dict[str, list[Path]] = {}
    place = _folder_of(folder, measurement)
    stem = store.FILE_NAMES.get(measurement, measurement)
    for path in sorted(place.rglob(f"{stem}.json")):
        cell = path.parent.parent.relative_to(place).as_posix()
        found.setdefault(cell, []).append(path)
    return found


def _only(cell: str, files: list[Path]) -> tidy.Planned:
    """The only result of a cell.

    Raises:
        ValueError: There are several.
    """
    if len(files) > 1:
        names = ", ".join(path.parent.name for path in files)
        raise ValueError(
            f"{files[0].parent.parent}: got {len(files)} results of {cell} ({names}), allowed: "
            "one; `rankwise clean` removes those of earlier settings"
        )
    return _planned(cell, files[0])


def _planned(cell: str, path: Path) -> tidy.Planned:
    """A result, with the name of its method if that is a variant."""
    method = cell.split("/")[2]
    return tidy.Planned(path, method if VARIANT_MARK in method else None)


def _has_results(folder: Path) -> bool:
    """Whether a run or profile of the study has ended; a planned study has a folder, too."""
    return any(_folder_of(folder, name).is_dir() for name in ("train", EVALUATE, *MEASUREMENTS))


def _studies_near(path: Path) -> list[str]:
    """The folders of studies next to the given one, or in results/ here."""
    near = [path.parent, Path(RESULTS)]
    names = {
        str(one)
        for place in near
        if place.is_dir()
        for one in [place, *place.iterdir()]
        if (one / OWNER).is_file() and _has_results(one)
    }
    return sorted(names)


def _message(where: str, got: str, allowed: list[str]) -> str:
    nearest = difflib.get_close_matches(got, allowed, n=1)
    hint = f" (nearest: {nearest[0]!r})" if nearest else ""
    return f"{where}: got {got!r}, allowed: {', '.join(allowed) or 'nothing'}{hint}"
