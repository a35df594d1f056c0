"""All cells of a study, each with the grid that asks for it, and the methods that they are run
with.

Reading the grids checks them: names, lengths, ranks, searches. Whatever is wrong is said here,
before any job is planned. Standard library only.
"""

from rankwise.core.config import ConfigError, merge, pick, without
from rankwise.study import grids, measurements, search
from rankwise.study.grids import Cell
from rankwise.study.measurements import FOLDERS, MEASUREMENTS, PREDICT
from rankwise.study.resolve import check_length, check_release, resolve_method

# Keys of an entry that change no result: what only people read, and the size of a dataset, which
# only the FLOPs of an epoch need. No request of another job has them.
COSMETIC = {
    "methods": ("label", "source", "note"),
    "models": ("note", "licence"),
    "datasets": ("note", "licence", "train_samples"),
}
Where = tuple[str, str]  # file, key


class StudyGrids:
    """The cells of a study.

    Args:
        study: The checked study.
        library: Checked entries by kind and name.
        file: The study's file, for messages.

    Attributes:
        by_measurement: Measurement -> cell -> the grid that asks for it, in the study's order.
        training_grids: Curve -> the grid that trains it; the first one if there are several.
        trials: Curve -> trial -> what it changes in the method's entry; only curves that are
            searched.

    Raises:
        ConfigError: a grid is wrong.
    """

    def __init__(self, study: dict, library: dict[str, dict], file: str):
        self.study, self.library, self.file = study, library, file
        self.by_measurement: dict[str, dict[Cell, dict]] = {
            name: {} for name in (*FOLDERS, *MEASUREMENTS, PREDICT)
        }
        # Every training run is predicted, once for all seeds of its curve.
        self.training_grids = self.by_measurement[PREDICT]
        self.trials: dict[Cell, dict[str, dict]] = {}
        self._resolved: dict[tuple, dict] = {}
        for kind in ("train", "profile"):
            for number, grid in enumerate(study[kind]):
                self._add(kind, f"{kind}.{number}", grid)
        self._check_reference()

    def _check_reference(self) -> None:
        """Check that the study trains the curve that it names as the page's reference."""
        named = self.study.get("reference")
        if not named:
            return
        curves = self.by_measurement["train"]
        methods = list(dict.fromkeys(cell.method for cell in curves))
        if named["method"] not in methods:
            allowed = f"a method that the study trains: {', '.join(methods) or 'it trains none'}"
            raise ConfigError(self.file, "reference.method", named["method"], allowed)
        ranks = sorted({cell.rank for cell in curves if cell.method == named["method"]})
        if named.get("rank", ranks[0]) not in ranks:
            allowed = f"a rank at which it trains {named['method']}: {', '.join(map(str, ranks))}"
            raise ConfigError(self.file, "reference.rank", named["rank"], allowed)

    def _add(self, kind: str, key: str, grid: dict) -> None:
        """Add one grid; `kind` is `train` or `profile`, `key` the grid's key in the study."""
        grids.check_names(self.library, grid, kind, (self.file, key))
        for cell in grids.cells(self.library, grid):
            self._check(kind, key, grid, cell)
            for measurement in ["train"] if kind == "train" else grid["measurements"]:
                if self.by_measurement[measurement].setdefault(cell, grid) != grid:
                    allowed = f"{measurement} of a cell in one grid only"
                    raise ConfigError(self.file, key, cell.folder, allowed)
            if kind == "train":
                self._add_curve(key, grid, cell.curve)
        if "search" in grid:
            self._add_trials(grid, (self.file, f"{key}.search"))

    def _check(self, kind: str, key: str, grid: dict, cell: Cell) -> None:
        """Check that the cell's method can do what the grid asks of it."""
        method = self.resolved_method(cell, grid, key)
        tokens = grids.tokens(self.library, grid, cell.dataset)
        longest = max(measurements.lengths(grid, tokens))
        model = self.library["models"][cell.model]
        check_length(cell.method, method, model, longest, (self.file, key))
        if kind == "train":
            schedule, schedule_key = self.schedule(grid), f"{key}.schedule"
        elif "throughput" in grid["measurements"]:  # it times updates, without clipping
            schedule, schedule_key = {**grid, "max_gradient_norm": None}, key
        else:
            return
        check_release(cell.method, method["optimizer"], schedule, (self.file, schedule_key))

    def _add_curve(self, key: str, grid: dict, curve: Cell) -> None:
        """Remember the grid that trains a curve.

        A search is for all seeds of a curve, so a curve with one is in one grid only.
        """
        first = self.training_grids.setdefault(curve, grid)
        if first is not grid and ("search" in first or "search" in grid):
            allowed = "a curve with a search in one grid only"
            raise ConfigError(self.file, key, curve.folder, allowed)

    def _add_trials(self, grid: dict, where: Where) -> None:
        """Add the trials of a grid's search; `where` is the file and key of the search."""
        _, key = where
        methods: dict[Cell, dict[str, dict]] = {}
        for curve, training_grid in self.training_grids.items():
            entry = self.resolved_method(curve, grid, key) if training_grid is grid else None
            # A method whose learning rate is 0 trains nothing, so there is nothing to search for.
            if entry and entry["learning_rate"]:
                self.trials[curve] = search.trials(grid["search"], curve.method, entry, where)
                methods[curve] = self._trial_methods(curve, grid, where)
        for curve, trials in methods.items():
            for trial in trials:
                cell = curve._replace(trial=trial)
                for seed in grid["search"]["seeds"]:
                    self.by_measurement["trial"][cell._replace(seed=seed)] = grid
        search.check_budget(grid["search"], methods, where)

    def _trial_methods(self, curve: Cell, grid: dict, where: Where) -> dict[str, dict]:
        """Trial -> the resolved method of each trial of a curve."""
        file, key = where
        schedule = {**self.schedule(grid), **grid["search"]["schedule"]}
        methods = {}
        for trial in self.trials[curve]:
            method = self.resolved_method(curve._replace(trial=trial), grid, key)
            check_release(curve.method, method["optimizer"], schedule, (file, f"{key}.schedule"))
            methods[trial] = method
        return methods

    def method(self, measurement: str, cell: Cell) -> dict:
        """The resolved method of a cell: see `resolved_method`.

        Args:
            measurement: `train`, `trial`, `predict` or one of `MEASUREMENTS`.
            cell: A cell of this measurement.

        Raises:
            KeyError: the study does not ask for this measurement of the cell.
        """
        return self.resolved_method(cell, self.by_measurement[measurement][cell], "cell")

    def resolved_method(self, cell: Cell, grid: dict, key: str) -> dict:
        """A method's entry with all overrides and defaults, for the cell's rank, model and trial.

        Args:
            cell: The cell, or its curve.
            grid: The grid that asks for it.
            key: The grid's key in the study, for messages.

        Raises:
            ConfigError: an override names no method, or `resolve_method` refuses the entry.
        """
        # Seeds and datasets share a method, so it is resolved once for all of them.
        case = (cell.method, cell.model, cell.rank, cell.trial, id(grid))
        if case not in self._resolved:
            model, where = self.library["models"][cell.model], f"{self.file}: {key}.ranks"
            entry = self._overridden_entry(cell, grid)
            resolved = resolve_method(cell.method, entry, model, cell.rank, where)
            self._resolved[case] = without(resolved, COSMETIC["methods"])
        return self._resolved[case]

    def _overridden_entry(self, cell: Cell, grid: dict) -> dict:
        """A method's entry with the overrides of study and grid, and its trial's changes."""
        overrides = {**self.study["override"], **grid["override"]}
        for name in overrides:
            pick(self.library["methods"], name, self.file, "override")
        entry = merge(self.library["methods"][cell.method], overrides.get(cell.method, {}))
        return merge(entry, self.trials[cell.curve][cell.trial]) if cell.trial else entry

    def schedule(self, grid: dict) -> dict:
        """The training schedule of a grid: the study's, with the grid's own values."""
        return {**self.study["schedule"], **grid["schedule"]}
