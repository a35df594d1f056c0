"""A study becomes cells, a cell becomes a path and a request: the JSON that alone decides a job's result.

A cell is model x dataset x method x rank (x seed). Standard library, yaml and jsonschema only: the Snakefile imports this.
"""

import functools
from collections.abc import Iterable
from pathlib import Path

from rankwise.core import paths, provenance
from rankwise.core.config import ConfigError, check, included, library, merge, pick, without
from rankwise.study import grids, measurements, search
from rankwise.study.grids import Cell
from rankwise.study.resolve import DENSE, check_length, check_release, check_sources, resolve_method

RESULTS = "results"
MEASUREMENTS = measurements.MEASUREMENTS
FOLDERS = {"train": "runs", "trial": "search"}  # of results; every other measurement is a profile
# What only people and the FLOPs of an epoch read: no part of other requests.
COSMETIC = {
    "methods": ("label", "source", "note"),
    "models": ("note", "licence"),
    "datasets": ("note", "licence", "train_samples"),
}


class Plan:
    """Everything that one study asks for.

    Raises:
        ConfigError: the study or an entry it names is wrong.
    """

    def __init__(self, study: dict, root: Path, file: str = "study"):
        self.root, self.file = root, file
        self.workflow = paths.workflow_root(root)
        self.study = included(check(study, paths.SCHEMAS / "study.schema.yaml", file), root)
        self.library = library(root)
        check_sources(self.library)
        self._resolved: dict[tuple, dict] = {}
        self._grids: dict[str, dict[Cell, dict]] = {
            name: {} for name in (*FOLDERS, *MEASUREMENTS, measurements.PREDICT)
        }
        self._first = self._grids[
            measurements.PREDICT
        ]  # curve -> the grid that trains it, the first if there are several
        self._trials: dict[
            Cell, dict[str, dict]
        ] = {}  # curve -> trial -> what it changes in the method's entry
        for kind in ("train", "profile"):
            for number, grid in enumerate(self.study[kind]):
                self._add(kind, f"{kind}.{number}", grid)

    # Cells ------------------------------------------------------------------------------------------------------------

    def cells(self, measurement: str) -> list[Cell]:
        """The cells in which `measurement` (train, trial, or a profile's) is taken, in the study's order."""
        return list(self._grids[measurement])

    def _add(self, kind: str, key: str, grid: dict) -> None:
        grids.check_names(self.library, grid, kind, (self.file, key))
        for cell in grids.cells(self.library, grid):
            method, where = self._method(cell, grid, key), (self.file, key)
            longest = max(
                measurements.lengths(grid, grids.tokens(self.library, grid, cell.dataset))
            )
            check_length(cell.method, method, self.library["models"][cell.model], longest, where)
            if kind == "train":
                check_release(
                    cell.method,
                    method["optimizer"],
                    self._schedule(grid),
                    (self.file, f"{key}.schedule"),
                )
            elif "throughput" in grid["measurements"]:
                check_release(
                    cell.method, method["optimizer"], {**grid, "max_gradient_norm": None}, where
                )
            for measurement in ["train"] if kind == "train" else grid["measurements"]:
                if self._grids[measurement].setdefault(cell, grid) != grid:
                    raise ConfigError(
                        self.file, key, cell.folder, f"{measurement} of a cell in one grid only"
                    )
            first = self._first.setdefault(cell.curve, grid) if kind == "train" else grid
            if first is not grid and "search" in {**first, **grid}:
                raise ConfigError(
                    self.file, key, cell.curve.folder, "a curve with a search in one grid only"
                )
        if "search" in grid:
            self._add_trials(grid, (self.file, f"{key}.search"))

    def _add_trials(self, grid: dict, where: tuple[str, str]) -> None:
        methods, given, schedule = (
            {},
            grid["search"],
            {**self._schedule(grid), **grid["search"]["schedule"]},
        )
        entries = {
            curve: self._method(curve, grid, where[1])
            for curve, first in self._first.items()
            if first is grid
        }
        for curve in (
            curve for curve, entry in entries.items() if entry["learning_rate"]
        ):  # where it is 0, nothing is trained
            self._trials[curve] = search.trials(given, curve.method, entries[curve], where)
            cells = {name: curve._replace(trial=name) for name in self._trials[curve]}
            methods[curve] = {
                name: self._method(cell, grid, where[1]) for name, cell in cells.items()
            }
            for name, method in methods[curve].items():
                check_release(
                    curve.method, method["optimizer"], schedule, (where[0], f"{where[1]}.schedule")
                )
                self._grids["trial"] |= {
                    cells[name]._replace(seed=seed): grid for seed in given["seeds"]
                }
        search.check_budget(given, methods, where)

    # Paths ------------------------------------------------------------------------------------------------------------

    @staticmethod
    def path(measurement: str, cell: Cell) -> str:
        """Where the result of one cell lies, relative to the root."""
        return f"{RESULTS}/{FOLDERS.get(measurement, 'profiles')}/{cell.folder}/{measurement}.json"

    @staticmethod
    def input_path(kind: str, name: str) -> str:
        """Where a prepared dataset or model says what it is; its files lie beside it."""
        return f"{RESULTS}/inputs/{kind}s/{name}/{kind}.json"

    def inputs(self) -> list[tuple[str, str]]:
        """(kind, name) of everything that training reads, the corpora of pre-trained models included."""
        cells = self.cells("train")
        models = dict.fromkeys(("model", cell.model) for cell in cells)
        datasets = dict.fromkeys(("dataset", cell.dataset) for cell in cells)
        corpora = {("dataset", corpus): None for _, name in models if (corpus := self.corpus(name))}
        return list({**datasets, **corpora, **models})

    # Requests ---------------------------------------------------------------------------------------------------------

    def method(self, measurement: str, cell: Cell) -> dict:
        """The method's entry with the study's overrides and every default filled in, for this cell's rank and model."""
        return self._method(cell, self._grids[measurement][cell], "cell")

    def _method(self, cell: Cell, grid: dict, key: str) -> dict:
        case = (cell.method, cell.model, cell.rank, cell.trial, id(grid))
        if case not in self._resolved:
            override = {**self.study["override"], **grid["override"]}
            for name in override:
                pick(self.library["methods"], name, self.file, "override")
            entry = merge(self.library["methods"][cell.method], override.get(cell.method, {}))
            entry = merge(entry, self._trials[cell.curve][cell.trial] if cell.trial else {})
            model, where = self.library["models"][cell.model], f"{self.file}: {key}.ranks"
            resolved = resolve_method(cell.method, entry, model, cell.rank, where)
            self._resolved[case] = without(resolved, COSMETIC["methods"])
        return self._resolved[case]

    def _schedule(self, grid: dict) -> dict:
        return {**self.study["schedule"], **grid["schedule"]}

    @functools.cache  # noqa: B019 - one plan lives as long as the process
    def request(self, measurement: str, cell: Cell) -> dict:
        """Everything that decides the result of one cell, and nothing else."""
        own = measurement in FOLDERS or self.needs_gpu(
            measurement, cell
        )  # every other profile runs in the CPU's environment
        shared = {
            "measurement": measurement,
            "cell": {name: value for name, value in cell._asdict().items() if value is not None},
            "environment": self.environment(self.study["environment"] if own else "cpu"),
        }
        return {
            **shared,
            **(self._training if measurement in FOLDERS else self._profiling)(measurement, cell),
        }

    def needs_gpu(self, measurement: str, cell: Cell) -> bool:
        """Whether a job takes a GPU."""
        trains = measurement in FOLDERS
        return (
            self.study["device"] == "cuda"
            if trains
            else measurements.on_gpu(measurement, self._grids[measurement][cell])
        )

    def _training(self, measurement: str, cell: Cell) -> dict:
        grid, method = self._grids[measurement][cell], self.method(measurement, cell)
        task, after = (
            self.library["datasets"][cell.dataset]["task"],
            measurement == "train" and cell.curve in self._trials,
        )
        found = {
            "model": self._model(cell.model),
            "method": method,
            "dataset": self._dataset(cell.dataset),
            "schedule": self._schedule(grid),
            "inputs": {
                "dataset": self._input_digest("dataset", cell.dataset),
                "model": self._input_digest("model", cell.model),
            },
            "device": self.study["device"],
            "cpu_threads": self.study["cpu_threads"],
            "code": self._code(
                measurement, method, f"rankwise.models.tasks.{task}", *[search.SETTLED] * after
            ),
        }
        if measurement == "trial":
            return search.trial_request(
                found, grid["search"]["schedule"], self._trials[cell.curve][cell.trial]
            )
        return (
            search.open_request(found, self._trials[cell.curve], self.choice(cell.curve))
            if after
            else found
        )

    @functools.cache  # noqa: B019 - one plan lives as long as the process
    def choice(self, curve: Cell) -> dict:
        """The request of the choice among the trials of a curve, whatever their order in the study."""
        seeds = self._first[curve]["search"]["seeds"]
        cells = [
            curve._replace(trial=name, seed=seed)
            for name in sorted(self._trials[curve])
            for seed in sorted(seeds)
        ]
        runs = [
            (cell.trial, self.path("trial", cell), provenance.digest(self.request("trial", cell)))
            for cell in cells
        ]
        return {
            "measurement": "choose",
            "cell": {name: value for name, value in curve._asdict().items() if value is not None},
            "environment": self.environment(self.study["environment"]),
            "trials": [
                {"trial": name, "result": path, "digest": digest} for name, path, digest in runs
            ],
            "code": self.digests("choose"),
        }

    def _profiling(self, measurement: str, cell: Cell) -> dict:
        """Only what a profile depends on: shapes, so that new weights, data or learning rates rerun none."""
        grid, dataset = self._grids[measurement][cell], self.library["datasets"][cell.dataset]
        grid = {**grid, **self._schedule(grid)} if measurement == measurements.PREDICT else grid
        method = without(self.method(measurement, cell), ("learning_rate",))
        shapes = {
            "task": dataset["task"],
            "classes": len(dataset.get("classes", [])),
            "batch_size": grid["batch_size"],
            "sequence_length_tokens": grids.tokens(self.library, grid, cell.dataset),
        }
        return {
            "model": without(self._model(cell.model), ("weights",)),
            "method": method,
            "shapes": shapes,
            "code": self._code(measurement, method),
            **measurements.settings(
                measurement, grid, self.study, dataset, shapes["sequence_length_tokens"]
            ),
        }

    def input_request(self, kind: str, name: str) -> dict:
        """The request of a prepared dataset or model."""
        entry = self._dataset(name) if kind == "dataset" else self._model(name)
        request = {kind: entry, "name": name, "environment": self.environment("cpu")}
        if kind == "dataset" or "pretrain" not in entry["weights"]:
            return {**request, "code": self.digests(f"prepare_{kind}")}
        corpus = entry["weights"]["pretrain"]["dataset"]
        dataset = pick(
            self.library["datasets"],
            corpus,
            "config/models.yaml",
            f"{name}.weights.pretrain.dataset",
        )
        return {
            **request,
            "dataset": self._dataset(corpus),
            "inputs": {"dataset": self._input_digest("dataset", corpus)},
            "code": self.digests("pretrain_model", f"rankwise.models.tasks.{dataset['task']}"),
        }

    def corpus(self, model: str) -> str | None:
        """The dataset that a model is pre-trained on, if it is."""
        return self._model(model).get("weights", {}).get("pretrain", {}).get("dataset")

    def pretraining_threads(self, model: str) -> int:
        """The number of CPU threads that the pre-training of a model uses."""
        return self._model(model)["weights"]["pretrain"]["cpu_threads"]

    @functools.cache  # noqa: B019 - one plan lives as long as the process
    def digest(self, measurement: str) -> str:
        """Digest of every planned request of one measurement: what a collected table must have been made of."""
        cells = self.cells(measurement)
        return provenance.digest(
            [[self.path(measurement, cell), self.request(measurement, cell)] for cell in cells]
        )

    def digests(self, script: str, *modules: str) -> dict[str, str]:
        """Digests of what a script executes, and of the modules that it loads by name."""
        return provenance.code_digests(
            self.workflow / provenance.SCRIPT_DIR / f"{script}.py", modules
        )

    @functools.cache  # noqa: B019 - one plan lives as long as the process
    def environment(self, name: str) -> dict[str, str]:
        """A lock file and the digest of its pins."""
        lock = f"envs/{name}.lock"
        return {"lock": lock, "digest": provenance.lock_digest(self.workflow / lock)}

    # Parts of a request -----------------------------------------------------------------------------------------------

    def _dataset(self, name: str) -> dict:
        return without(self.library["datasets"][name], COSMETIC["datasets"])

    def _model(self, name: str) -> dict:
        return without(self.library["models"][name], COSMETIC["models"])

    @functools.cache  # noqa: B019 - one plan lives as long as the process
    def _input_digest(self, kind: str, name: str) -> str:
        return provenance.digest(self.input_request(kind, name))

    def _code(self, script: str, method: dict, *others: str) -> dict[str, str]:
        loaded = (
            f"rankwise.methods.{method['module']}",
            f"rankwise.optim.{method['optimizer']['module']}",
        )
        bits = () if method["weights"] in DENSE else ("rankwise.models.quantized",)
        return self.digests(script, *loaded, *bits, *others)


def study_file(given: Iterable[object], root: Path) -> str:
    """The name of the study's file in messages: as below the root, or its name alone."""
    default = paths.workflow_root(root) / "config" / "config.yaml"
    path = Path(next(iter(given), default)).resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name
