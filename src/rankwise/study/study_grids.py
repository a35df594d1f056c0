"""All cells of a study, each with the grid that asks for it, and the methods that they are run
with.

Reading the grids checks them: names, lengths, ranks, searches. Whatever is wrong is said here,
before any job is planned. Standard library only.
"""

from rankwise.core import provenance
from rankwise.core.config import ConfigError, merge, without
from rankwise.study import grids, keep, measurements, search, variants
from rankwise.study.grids import Cell
from rankwise.study.measurements import FOLDERS, MEASUREMENTS, PREDICT
from rankwise.study.memory_options import (
    ATTENTION,
    check_attention,
    check_loss,
    check_packed_attention,
    check_precision,
    check_scaled_sharding,
)
from rankwise.study.origin import FILE, Layer, Origin
from rankwise.study.overrides import check_used
from rankwise.study.packing import check_packing
from rankwise.study.process_limits import check_processes, check_profiled
from rankwise.study.resolve import check_length, check_release, resolve_method
from rankwise.study.step_options import check_step

# Keys of an entry that change no result: what only people read, and the size of a dataset, which
# only the FLOPs of an epoch need. No request of another job has them.
COSMETIC = {
    "methods": ("label", "source", "note"),
    "models": ("note", "licence"),
    "datasets": ("note", "licence", "train_samples", "metric"),
}
Where = tuple[str, str]  # file, key


class StudyGrids:
    """The cells of a study.

    Args:
        study: The checked study.
        library: Checked entries by kind and name.
        file: The study's file, for messages.

    Attributes:
        by_measurement: Measurement -> cell -> the grid that asks for it, in the study's order. The
            grid of a variant has the variant's own settings (`variants.parts`).
        training_grids: Curve -> the grid that trains it; the first one if there are several.
        trials: Curve -> trial -> what it changes in the method's entry; only curves that are
            searched.
        variants: Name of a variant (`lora@fast`) -> what differs from the method, in words.
        variant_labels: The same in words that are short enough for a label.

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
        self.variants: dict[str, str] = {}
        self.variant_labels: dict[str, str] = {}
        # Name of a variant -> `method`, `train` or `profile` -> what it changes there.
        self._changes: dict[str, dict[str, dict]] = {}
        self._resolved: dict[tuple, dict] = {}
        self._parts: list[dict] = []  # keeps every grid alive, because their ids are keys
        self._keys: dict[int, str] = {}  # id of a grid -> its key in the study
        for kind in ("train", "profile"):
            for number, grid in enumerate(study[kind]):
                self._add(kind, f"{kind}.{number}", grid)
        check_used(study, library, file)
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
        parts = variants.parts(self.library, self.study, grid, (self.file, key))
        self._parts += parts
        self._keys |= {id(part): key for part in parts}
        for part in parts:
            self._add_part(kind, key, part)
        self._check_variants_differ(kind, key, parts)
        for part in parts[1:]:
            self._name_variants(kind, key, grid, part, parts[0])

    def _add_part(self, kind: str, key: str, grid: dict) -> None:
        """Add the cells of a grid without variants, or of one variant of a grid."""
        for cell in grids.cells(self.library, grid):
            self._check(kind, key, grid, cell)
            for measurement in ["train"] if kind == "train" else grid["measurements"]:
                first = self.by_measurement[measurement].setdefault(cell, grid)
                if first != grid:
                    allowed = (
                        f"{measurement} of a cell in one grid only; {self._keys[id(first)]} has "
                        "it. Other settings of a method are a variant with a name of its own: see "
                        "variants in docs/studies.md"
                    )
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
        dataset = self.library["datasets"][cell.dataset]
        task = dataset["task"]
        check_length(cell.method, method, model, longest, (self.file, key))
        makes_updates = True
        if kind == "train":
            check_packing(dataset, model, method, (cell.dataset, cell.model, cell.method))
            schedule, schedule_key = self.schedule(grid), f"{key}.schedule"
            kept = self._keep(cell, grid, key)
            check_processes(cell.method, method, schedule, (self.file, schedule_key), kept)
            self._check_attention(method, schedule, dataset, schedule_key)
            check_scaled_sharding(schedule, (self.file, schedule_key))
        else:  # profiles do not clip
            schedule, schedule_key = {**grid, "max_gradient_norm": None}, key
            check_profiled(cell.method, method, grid, (self.file, key))
            measurements.check_own_lengths(grid, cell.model, model, (self.file, key))
            measurements.check_target(grid, task, (self.file, key))
            check_step(grid, method, dataset, (self.file, key))
            makes_updates = not measurements.UPDATING.isdisjoint(grid["measurements"])
            if makes_updates:
                check_packing(dataset, model, method, (cell.dataset, cell.model, cell.method))
        where = (self.file, f"{schedule_key}.loss")
        check_loss(schedule["loss"], task, cell.model, model, self.study["device"], where)
        if makes_updates:
            check_release(cell.method, method["optimizer"], schedule, (self.file, schedule_key))
            check_precision(cell.method, schedule, method, (self.file, schedule_key))

    def _check_attention(self, method: dict, schedule: dict, dataset: dict, key: str) -> None:
        """Check that training can have the attention of its schedule; `key` is the schedule's."""
        step = {**schedule, "device": self.study["device"]}
        check_attention(step, method, (self.file, key), runs=True)
        check_packed_attention(schedule, dataset, (self.file, key))

    def _add_curve(self, key: str, grid: dict, curve: Cell) -> None:
        """Remember the grid that trains a curve.

        A search is for all seeds of a curve, so a curve with one is in one grid only.
        """
        first = self.training_grids.setdefault(curve, grid)
        if first is not grid and ("search" in first or "search" in grid):
            allowed = f"a curve with a search in one grid only; {self._keys[id(first)]} has it"
            raise ConfigError(self.file, key, curve.folder, allowed)

    # Variants -------------------------------------------------------------------------------------

    def _name_variants(self, kind: str, key: str, grid: dict, part: dict, plain: dict) -> None:
        """Remember what a variant changes in each of its methods, in words.

        Args:
            kind: `train` or `profile`.
            key: The grid's key in the study.
            grid: The grid as the study has it.
            part: The grid of the variant.
            plain: The grid without variants.
        """
        variant = grid["variants"][part["variant"]]
        for method in part["methods"]:
            changes = variants.changes(variant, method)
            name = f"{method}{grids.VARIANT_MARK}{part['variant']}"
            # Training has a schedule and a profile has settings, so only the method is compared
            # between the two kinds.
            shared = self._changes.setdefault(name, {"method": variants.of_method(changes)})
            known = shared.setdefault(kind, changes)
            if known != changes or shared["method"] != variants.of_method(changes):
                allowed = f"what {name} changes in another grid of the study, or another name"
                where = f"{key}.variants.{part['variant']}"
                raise ConfigError(self.file, where, variants.text(changes), allowed)
            differing = variants.text(self._differing(changes, method, part, plain, key))
            is_short = len(differing) <= variants.LONGEST
            self.variants.setdefault(name, differing)
            words = variant.get("label") or (differing if is_short else part["variant"])
            self.variant_labels.setdefault(name, words)

    def _differing(
        self, changes: variants.Changes, method: str, part: dict, plain: dict, key: str
    ) -> variants.Changes:
        """The changes of a variant that give some curve of a method another value than before."""
        differing = set()
        for cell in grids.cells(self.library, {**part, "methods": [method]}):
            own = self._curve_settings(cell.curve, part, key)
            others = self._curve_settings(cell.curve._replace(variant=None), plain, key)
            differing |= {
                path
                for path in changes
                if variants.value_at(own, path) != variants.value_at(others, path)
            }
        return {path: value for path, value in changes.items() if path in differing}

    def _curve_settings(self, curve: Cell, grid: dict, key: str) -> dict:
        """The resolved method of a curve, and how it is run.

        That is the `schedule` where it trains, and the `settings` of the grid in a profile.
        """
        method = self.resolved_method(curve, grid, key)
        if "schedule" in grid:
            return {"method": method, "schedule": self.schedule(grid), "settings": {}}
        settings = without(grid, ("variant", "methods", "override"))
        return {"method": method, "schedule": {}, "settings": settings}

    def _check_variants_differ(self, kind: str, key: str, parts: list[dict]) -> None:
        """Check that no two curves of a grid, with variants and without, are the same runs."""
        if len(parts) == 1:
            return
        first_with: dict[tuple[Cell, str], Cell] = {}
        for grid in parts:
            for curve in dict.fromkeys(cell.curve for cell in grids.cells(self.library, grid)):
                settings = provenance.digest(self._deciding_settings(kind, curve, grid, key))
                plain = curve._replace(variant=None)
                other = first_with.setdefault((plain, settings), curve)
                if other != curve:
                    got = f"the settings of {other.method_name} at {curve.folder}"
                    allowed = (
                        f"settings that no other {curve.method} of the grid has; "
                        "change one, or remove the variant"
                    )
                    raise ConfigError(self.file, f"{key}.variants.{curve.variant}", got, allowed)

    def _deciding_settings(self, kind: str, curve: Cell, grid: dict, key: str) -> dict:
        """What tells the runs, or the profiles, of a curve from those of another variant."""
        settings = self._curve_settings(curve, grid, key)
        if kind == "profile":  # it depends on no learning rate
            return {**settings, "method": without(settings["method"], ("learning_rate",))}
        if curve not in self.trials:
            return settings
        # A search replaces settings, perhaps just those that a variant changes.
        trials = [curve._replace(trial=trial) for trial in sorted(self.trials[curve])]
        methods = [self.resolved_method(trial, grid, key) for trial in trials]
        return {"methods": methods, "schedule": settings["schedule"]}

    # Searches and methods -------------------------------------------------------------------------

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
        model = self.library["models"][curve.model]
        task = self.library["datasets"][curve.dataset]["task"]
        where = (file, f"{key}.schedule.loss")
        check_loss(schedule["loss"], task, curve.model, model, self.study["device"], where)
        methods = {}
        for trial in self.trials[curve]:
            method = self.resolved_method(curve._replace(trial=trial), grid, key)
            check_release(curve.method, method["optimizer"], schedule, (file, f"{key}.schedule"))
            check_processes(curve.method, method, schedule, (file, f"{key}.schedule"))
            dataset = self.library["datasets"][curve.dataset]
            self._check_attention(method, schedule, dataset, f"{key}.schedule")
            check_precision(curve.method, schedule, method, (file, f"{key}.schedule"))
            check_scaled_sharding(schedule, (file, f"{key}.schedule"))
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
            ConfigError: `resolve_method` refuses the entry.
        """
        # Seeds and datasets share a method, so it is resolved once for all of them.
        case = (cell.method_name, cell.model, cell.rank, cell.trial, id(grid))
        if case not in self._resolved:
            model, where = self.library["models"][cell.model], f"{self.file}: {key}.ranks"
            entry = self._overridden_entry(cell, grid)
            origin = self._origin(cell, grid, key.removesuffix(".search"))
            resolved = resolve_method(cell.method, entry, model, cell.rank, where, origin)
            self._resolved[case] = without(resolved, COSMETIC["methods"])
        return self._resolved[case]

    def _variant(self, grid: dict) -> dict:
        """The variant of the study that a grid is of; empty if it is of none."""
        if "variant" not in grid:
            return {}
        kind, number = self._keys[id(grid)].split(".")
        return self.study[kind][int(number)]["variants"][grid["variant"]]

    def _overridden_entry(self, cell: Cell, grid: dict) -> dict:
        """A method's entry with the overrides of study and grid, and its trial's changes."""
        overrides = {**self.study["override"], **grid["override"]}
        entry = merge(self.library["methods"][cell.method], overrides.get(cell.method, {}))
        return merge(entry, self.trials[cell.curve][cell.trial]) if cell.trial else entry

    def _origin(self, cell: Cell, grid: dict, key: str) -> Origin:
        """Which text each value of a cell's method comes from; `key` is the grid's in the study."""
        name = cell.method
        layers = [Layer(FILE, name, self.library["methods"][name])]
        if name in grid["override"]:
            layers.append(Layer(self.file, f"{key}.override.{name}", grid["override"][name]))
        elif name in self.study["override"]:
            layers.append(Layer(self.file, f"override.{name}", self.study["override"][name]))
        own = self._variant(grid).get("override", {})
        if name in own:
            where = f"{key}.variants.{grid['variant']}.override.{name}"
            layers.append(Layer(self.file, where, own[name]))
        if cell.trial:
            of_all, own = f"{key}.search", grid["search"]["methods"].get(name, {})
            for part, values in self.trials[cell.curve][cell.trial].items():
                part_key = f"{of_all}.methods.{name}" if part in own else of_all
                layers.append(Layer(self.file, part_key, {part: values}))
        return Origin(layers)

    def keep(self, cell: Cell) -> str:
        """The weights that a training run keeps: see `keep.resolved`.

        Args:
            cell: A cell that the study trains.

        Raises:
            KeyError: the study does not train it.
        """
        grid = self.by_measurement["train"][cell]
        return self._keep(cell, grid, self._keys[id(grid)])

    def _keep(self, cell: Cell, grid: dict, key: str) -> str:
        where = (self.file, f"{key}.keep" if "keep" in grid else "keep")
        wanted = grid.get("keep", self.study.get("keep"))
        method, model = self.resolved_method(cell, grid, key), self.library["models"][cell.model]
        return keep.resolved(wanted, cell.method, method, model, where)

    def schedule(self, grid: dict) -> dict:
        """The training schedule of a grid: the study's, with the grid's own values.

        The attention that is taken anyway is left out, so that naming it trains nothing anew.
        """
        schedule = {**self.study["schedule"], **grid["schedule"]}
        if schedule.get("attention") == ATTENTION:
            del schedule["attention"]
        return schedule
