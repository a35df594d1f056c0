"""A study becomes cells, a cell becomes a path and a request: the JSON that alone decides a job's result.

A cell is model x dataset x method x rank (x seed). Standard library, yaml and jsonschema only: the Snakefile imports this.
"""

import functools
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rankwise import profiles, provenance
from rankwise.config import ConfigError, check, library, merge, pick, without
from rankwise.entries import DENSE, check_length, check_pair, check_release, check_sources, resolve_method, takes_rank

RESULTS = "results"
MEASUREMENTS = profiles.MEASUREMENTS
# What only people and the FLOPs of an epoch read: no part of other requests.
COSMETIC = {
    "methods": ("label", "source", "note"),
    "models": ("note", "licence"),
    "datasets": ("note", "licence", "train_samples"),
}


class Cell(NamedTuple):
    """One run: names of config entries; rank 0 where the method has no rank; seed None in a profile."""

    model: str
    dataset: str
    method: str
    rank: int
    seed: int | None = None

    @property
    def folder(self) -> str:
        seed = "" if self.seed is None else f"/seed{self.seed}"
        return f"{self.model}/{self.dataset}/{self.method}/r{self.rank}{seed}"


class Plan:
    """Everything that one study asks for.

    Raises:
        ConfigError: the study or an entry it names is wrong.
    """

    def __init__(self, study: dict, root: Path, file: str = "study"):
        self.root, self.file = root, file
        self.study = check(study, root / "config" / "schema" / "study.schema.yaml", file)
        self.library = library(root)
        check_sources(self.library)
        self._resolved: dict[tuple, dict] = {}
        self._grids: dict[str, dict[Cell, dict]] = {name: {} for name in ("train", *MEASUREMENTS)}
        for kind in ("train", "profile"):
            for number, grid in enumerate(self.study[kind]):
                self._add(kind, f"{kind}.{number}", grid)

    # Cells ------------------------------------------------------------------------------------------------------------

    def cells(self, measurement: str) -> list[Cell]:
        """The cells in which `measurement` (train, or a profile's) is taken, in the study's order."""
        return list(self._grids[measurement])

    def _add(self, kind: str, key: str, grid: dict) -> None:
        self._check_names(kind, key, grid)
        for cell in self._expand(grid):
            method, where = self._method(cell, grid, key), (self.file, key)
            longest = max(profiles.lengths(grid, self._tokens(cell.dataset, grid)))
            check_length(cell.method, method, self.library["models"][cell.model], longest, where)
            if kind == "train":
                check_release(cell.method, method["optimizer"], self._schedule(grid), (self.file, f"{key}.schedule"))
            elif "throughput" in grid["measurements"]:
                check_release(cell.method, method["optimizer"], {**grid, "max_gradient_norm": None}, where)
            for measurement in ["train"] if kind == "train" else grid["measurements"]:
                if self._grids[measurement].setdefault(cell, grid) != grid:
                    raise ConfigError(self.file, key, cell.folder, f"{measurement} of a cell in one grid only")

    def _check_names(self, kind: str, key: str, grid: dict) -> None:
        for entries in ("models", "datasets", "methods"):
            for name in grid[entries]:
                pick(self.library[entries], name, self.file, f"{key}.{entries}")
        ready = {name: entry for name, entry in self.library["models"].items() if kind == "profile" or "weights" in entry}
        for name in grid["models"]:
            if name not in ready:
                raise ConfigError(self.file, f"{key}.models", name, f"models with weights: {', '.join(ready)}")
        for model, dataset in itertools.product(grid["models"], grid["datasets"]):
            check_pair(self.library, model, dataset, self._tokens(dataset, grid), (self.file, key))
            profiles.check_lengths(grid, model, self.library["models"][model]["max_positions_tokens"], (self.file, key))

    def _tokens(self, dataset: str, grid: dict) -> int:
        return grid.get("sequence_length_tokens", self.library["datasets"][dataset]["max_length_tokens"])

    def _expand(self, grid: dict) -> Iterator[Cell]:
        for model, dataset, method in itertools.product(grid["models"], grid["datasets"], grid["methods"]):
            ranks = grid["ranks"] if takes_rank(self.library["methods"][method], method) else [0]
            for rank, seed in itertools.product(ranks, grid.get("seeds", [None])):
                yield Cell(model, dataset, method, rank, seed)

    # Paths ------------------------------------------------------------------------------------------------------------

    @staticmethod
    def path(measurement: str, cell: Cell) -> str:
        """Where the result of one cell lies, relative to the root."""
        folder = "runs" if measurement == "train" else "profiles"
        return f"{RESULTS}/{folder}/{cell.folder}/{measurement}.json"

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
        case = (cell.method, cell.model, cell.rank, id(grid))
        if case not in self._resolved:
            override = {**self.study["override"], **grid["override"]}
            for name in override:
                pick(self.library["methods"], name, self.file, "override")
            entry = merge(self.library["methods"][cell.method], override.get(cell.method, {}))
            model, where = self.library["models"][cell.model], f"{self.file}: {key}.ranks"
            resolved = resolve_method(cell.method, entry, model, cell.rank, where)
            self._resolved[case] = without(resolved, COSMETIC["methods"])
        return self._resolved[case]

    def _schedule(self, grid: dict) -> dict:
        return {**self.study["schedule"], **grid["schedule"]}

    @functools.cache  # noqa: B019 - one plan lives as long as the process
    def request(self, measurement: str, cell: Cell) -> dict:
        """Everything that decides the result of one cell, and nothing else."""
        own = measurement == "train" or self.needs_gpu(measurement, cell)  # every other profile runs in the CPU's environment
        shared = {
            "measurement": measurement,
            "cell": {name: value for name, value in cell._asdict().items() if value is not None},
            "environment": self.environment(self.study["environment"] if own else "cpu"),
        }
        return {**shared, **(self._training(cell) if measurement == "train" else self._profiling(measurement, cell))}

    def needs_gpu(self, measurement: str, cell: Cell) -> bool:
        """Whether a job takes a GPU."""
        trains = measurement == "train"
        return self.study["device"] == "cuda" if trains else profiles.on_gpu(measurement, self._grids[measurement][cell])

    def _training(self, cell: Cell) -> dict:
        method, task = self.method("train", cell), self.library["datasets"][cell.dataset]["task"]
        return {
            "model": self._model(cell.model),
            "method": method,
            "dataset": self._dataset(cell.dataset),
            "schedule": self._schedule(self._grids["train"][cell]),
            "inputs": {
                "dataset": self._input_digest("dataset", cell.dataset),
                "model": self._input_digest("model", cell.model),
            },
            "device": self.study["device"],
            "cpu_threads": self.study["cpu_threads"],
            "code": self._code("train", method, f"rankwise.tasks.{task}"),
        }

    def _profiling(self, measurement: str, cell: Cell) -> dict:
        """Only what a profile depends on: shapes, so that new weights, data or learning rates rerun none."""
        grid, dataset = self._grids[measurement][cell], self.library["datasets"][cell.dataset]
        method = without(self.method(measurement, cell), ("learning_rate",))
        shapes = {
            "task": dataset["task"],
            "classes": len(dataset.get("classes", [])),
            "batch_size": grid["batch_size"],
            "sequence_length_tokens": self._tokens(cell.dataset, grid),
        }
        return {
            "model": without(self._model(cell.model), ("weights",)),
            "method": method,
            "shapes": shapes,
            "code": self._code(measurement, method),
            **profiles.settings(measurement, grid, self.study, dataset, shapes["sequence_length_tokens"]),
        }

    def input_request(self, kind: str, name: str) -> dict:
        """The request of a prepared dataset or model."""
        entry = self._dataset(name) if kind == "dataset" else self._model(name)
        request = {kind: entry, "name": name, "environment": self.environment("cpu")}
        if kind == "dataset":
            return {**request, "code": self.digests("prepare_dataset")}
        if "pretrain" not in entry["weights"]:
            return {**request, "code": self.digests("prepare_model")}
        corpus = entry["weights"]["pretrain"]["dataset"]
        dataset = pick(self.library["datasets"], corpus, "config/models.yaml", f"{name}.weights.pretrain.dataset")
        return {
            **request,
            "dataset": self._dataset(corpus),
            "inputs": {"dataset": self._input_digest("dataset", corpus)},
            "code": self.digests("pretrain_model", f"rankwise.tasks.{dataset['task']}"),
        }

    def corpus(self, model: str) -> str | None:
        """The dataset that a model is pre-trained on, if it is."""
        return self._model(model).get("weights", {}).get("pretrain", {}).get("dataset")

    @functools.cache  # noqa: B019 - one plan lives as long as the process
    def digest(self, measurement: str) -> str:
        """Digest of every planned request of one measurement: what a collected table must have been made of."""
        cells = self.cells(measurement)
        return provenance.digest([[self.path(measurement, cell), self.request(measurement, cell)] for cell in cells])

    def digests(self, script: str, *modules: str) -> dict[str, str]:
        """Digests of what a script executes, and of the modules that it loads by name."""
        return provenance.code_digests(self.root / provenance.SCRIPT_DIR / f"{script}.py", modules)

    @functools.cache  # noqa: B019 - one plan lives as long as the process
    def environment(self, name: str) -> dict[str, str]:
        """A lock file and the digest of its pins."""
        lock = f"envs/{name}.lock"
        return {"lock": lock, "digest": provenance.lock_digest(self.root / lock)}

    # Parts of a request -----------------------------------------------------------------------------------------------

    def _dataset(self, name: str) -> dict:
        return without(self.library["datasets"][name], COSMETIC["datasets"])

    def _model(self, name: str) -> dict:
        return without(self.library["models"][name], COSMETIC["models"])

    @functools.cache  # noqa: B019 - one plan lives as long as the process
    def _input_digest(self, kind: str, name: str) -> str:
        return provenance.digest(self.input_request(kind, name))

    def _code(self, script: str, method: dict, *others: str) -> dict[str, str]:
        loaded = (f"rankwise.methods.{method['module']}", f"rankwise.optim.{method['optimizer']['module']}")
        bits = () if method["weights"] in DENSE else ("rankwise.quantized",)
        return self.digests(script, *loaded, *bits, *others)


def dumps(request: dict) -> str:
    """A request as the one string that Snakemake compares."""
    return json.dumps(request, sort_keys=True)
