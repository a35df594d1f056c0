"""A study becomes cells; a cell becomes a path and a request, the JSON that decides a job's result.

A cell is model x dataset x method x rank (x seed). The files of the paper study,
config/config.yaml, lie in results/, those of every other study in results/{its name}/. Standard
library, yaml and jsonschema only: the Snakefile imports this module.
"""

import functools
from collections.abc import Iterable
from pathlib import Path

from rankwise.core import paths, provenance, store
from rankwise.core.config import ConfigError, checked_study, library, read_yaml, without
from rankwise.core.lock import lock_digest
from rankwise.study import architectures, evaluations, inline, job_requests, measurements, search
from rankwise.study.grids import Cell
from rankwise.study.resolve import check_sources
from rankwise.study.source_digests import SourceDigests
from rankwise.study.study_grids import COSMETIC, StudyGrids

RESULTS, LOGS = "results", "logs"
# Most modules that need these need a plan, too.
FOLDERS, MEASUREMENTS = measurements.FOLDERS, measurements.MEASUREMENTS
DEFAULT_STUDY = "config/config.yaml"  # the paper study, which is meant if none is named
# Names in results/ that no study may have, because they are of the paper study or of all studies.
TAKEN = frozenset(
    {*store.PARTS, "store", "checkpoints", "claims", "exports", "figures", "numbers", "tables"}
)


class Plan:
    """Everything that one study asks for.

    Args:
        study: The study as its file has it.
        root: The project's folder: results, and the user's own entries.
        file: The study's file, relative to the project.
        added: Entries by kind and name that no file has.

    Attributes:
        results: The folder of the study's files, relative to the project.
        logs: The folder of its logs.
        workflow: The folder of the workflow that is used: scripts and locks.
        study: The checked study with its defaults. It can be planned again: its grids have places
            as the file names them, and those of `grids` have the names of their entries.
        library: Checked entries by kind (methods, models, datasets, claims) and name, with those
            derived from the places that the study names (`inline`).
        grids: The study's cells and their methods.

    Raises:
        ConfigError: the study, or an entry that it names, is wrong.
    """

    def __init__(
        self,
        study: dict,
        root: Path,
        file: str = "study",
        added: dict[str, dict[str, dict]] | None = None,
    ):
        self.root, self.file = root, file
        self.workflow = paths.workflow_root(root)
        self.study = checked_study(search.with_auto(study, file), root, file)
        self.results = results_folder(file, self.study["name"])
        self.logs = LOGS + self.results.removeprefix(RESULTS)
        entries = library(root)
        for kind, of_kind in (added or {}).items():
            entries[kind] = {**entries[kind], **of_kind}
        named, self.library = inline.resolve(self.study, entries, root, file)
        check_sources(self.library)
        for model in _models(named):
            if model in self.library["models"]:  # an unknown name is told with its grid
                entry = architectures.checked(model, self.library["models"][model])
                self.library["models"] = {**self.library["models"], model: entry}
        self.grids = StudyGrids(named, self.library, file)
        self._source_digests = SourceDigests(root, self.results)
        self.evaluations = evaluations.Evaluations(self, named["evaluate"])

    # Cells and paths ------------------------------------------------------------------------------

    def cells(self, measurement: str) -> list[Cell]:
        """The cells of a measurement (train, evaluate, memory, ...), in the study's order."""
        if measurement == measurements.EVALUATE:
            return list(self.evaluations.cells)
        return list(self.grids.by_measurement[measurement])

    def path(self, measurement: str, cell: Cell) -> str:
        """The result of one cell, relative to the project: a link to the store.

        Args:
            measurement: `train`, `trial`, `predict` or one of `MEASUREMENTS`.
            cell: A cell of this measurement.

        Raises:
            KeyError: the study does not ask for this measurement of the cell.
        """
        folder = store.FOLDERS.get(measurement, store.PROFILES)
        digest = self.cell_digest(measurement, cell)
        stem = store.FILE_NAMES.get(measurement, measurement)
        return f"{self.results}/{folder}/{cell.folder}/{digest}/{stem}.json"

    def output(self, relative: str) -> str:
        """A file of the study, relative to the project; `relative` is as `outputs` names it."""
        return f"{self.results}/{relative}"

    def choice_path(self, curve: Cell) -> str:
        """The choice among the trials of a curve, relative to the project."""
        folder = store.FOLDERS["choose"]
        digest = provenance.digest(self.choice(curve))
        return f"{self.results}/{folder}/{curve.folder}/{digest}/selected.json"

    def trial_paths(self, curve: Cell) -> list[str]:
        """The results of all trials of a curve, relative to the project."""
        return [self.path("trial", cell) for cell in self.cells("trial") if cell.curve == curve]

    def input_path(self, kind: str, name: str) -> str:
        """The description of a prepared dataset or model, relative to the project.

        Its data files are beside the file that this link leads to.

        Args:
            kind: `dataset` or `model`.
            name: The entry's name.
        """
        return f"{self.results}/{store.input_place(kind, name, self.input_digest(kind, name))}"

    def reads_data(self, measurement: str, cell: Cell) -> bool:
        """Whether the profile of a cell takes its lengths from the dataset."""
        grid = self.grids.by_measurement[measurement][cell]
        return measurements.reads_data(measurement, grid)

    def profile_inputs(self, measurement: str, cell: Cell) -> list[str]:
        """The prepared dataset and model that a profile reads, relative to the project."""
        if not self.reads_data(measurement, cell):
            return []
        return [self.input_path("dataset", cell.dataset), self.input_path("model", cell.model)]

    def inputs(self) -> list[tuple[str, str]]:
        """(kind, name) of every input of training and profiles, and of the corpora of pre-trained
        models.

        Datasets come first.
        """
        cells = self.cells("train")
        for measurement in measurements.WITH_OWN_LENGTHS:
            cells += [
                cell for cell in self.cells(measurement) if self.reads_data(measurement, cell)
            ]
        models = dict.fromkeys(cell.model for cell in cells)
        datasets = dict.fromkeys(cell.dataset for cell in cells)
        datasets |= dict.fromkeys(self.evaluations.datasets())
        for model in models:
            corpus = self.corpus(model)
            if corpus:
                datasets.setdefault(corpus)
        return [*(("dataset", name) for name in datasets), *(("model", name) for name in models)]

    def is_searched(self, curve: Cell) -> bool:
        """Whether a search chooses the settings of the curve's runs."""
        return curve in self.grids.trials

    # Entries --------------------------------------------------------------------------------------

    def method(self, measurement: str, cell: Cell) -> dict:
        """The method's entry with all overrides and defaults, for this cell's rank and model.

        Args:
            measurement: `train`, `trial`, `predict` or one of `MEASUREMENTS`.
            cell: A cell of this measurement.

        Raises:
            KeyError: the study does not ask for this measurement of the cell.
        """
        if measurement == measurements.EVALUATE:
            return self.grids.method("train", cell.run)
        return self.grids.method(measurement, cell)

    def dataset_entry(self, name: str) -> dict:
        """A dataset's entry without the keys that change no result, with its files' digests."""
        entry = without(self.library["datasets"][name], COSMETIC["datasets"])
        return self._source_digests.dataset(name, entry)

    def model_entry(self, name: str) -> dict:
        """A model's entry without the keys that change no result, with its files' digests."""
        entry = without(self.library["models"][name], COSMETIC["models"])
        return self._source_digests.model(name, entry)

    def evaluation_entry(self, cell: Cell) -> dict:
        """What an evaluation's cell asks, with the digests of the files that it reads.

        Args:
            cell: A cell of the evaluations.
        """
        return self._source_digests.evaluation(self.evaluations.cells[cell])

    def _pretraining(self, model: str) -> dict:
        """How a model is pre-trained; empty if it is not."""
        return self.library["models"][model].get("weights", {}).get("pretrain", {})

    def corpus(self, model: str) -> str | None:
        """The dataset that a model is pre-trained on, if it is."""
        return self._pretraining(model).get("dataset")

    def pretraining_threads(self, model: str) -> int:
        """The number of CPU threads that the pre-training of a model uses."""
        return self._pretraining(model)["cpu_threads"]

    def needs_gpu(self, measurement: str, cell: Cell) -> bool:
        """Whether the job of a cell takes a GPU.

        Args:
            measurement: `train`, `trial`, `predict` or one of `MEASUREMENTS`.
            cell: A cell of this measurement.

        Raises:
            KeyError: the study does not ask for this profile of the cell.
        """
        if measurement in (*FOLDERS, measurements.EVALUATE):
            return self.study["device"] == "cuda"
        return measurements.on_gpu(measurement, self.grids.by_measurement[measurement][cell])

    def processes(self, measurement: str, cell: Cell) -> int:
        """How many processes the job of a cell starts; arguments and errors as of `request`."""
        return self.request(measurement, cell).get("schedule", {}).get("processes", 1)

    # Requests -------------------------------------------------------------------------------------
    # A plan lives as long as its process, so caches on its methods (B019) keep nothing alive for
    # longer.

    @functools.cache  # noqa: B019
    def request(self, measurement: str, cell: Cell) -> dict:
        """Everything that decides the result of one cell, and nothing else.

        Args:
            measurement: `train`, `trial`, `predict` or one of `MEASUREMENTS`.
            cell: A cell of this measurement.

        Raises:
            KeyError: the study does not ask for this measurement of the cell.
        """
        return job_requests.cell_request(self, measurement, cell)

    @functools.cache  # noqa: B019
    def cell_digest(self, measurement: str, cell: Cell) -> str:
        """The digest of a cell's request; arguments and errors as of `request`."""
        return provenance.digest(self.request(measurement, cell))

    @functools.cache  # noqa: B019
    def choice(self, curve: Cell) -> dict:
        """The request of the choice among the trials of a curve."""
        return job_requests.choice_request(self, curve)

    def input_request(self, kind: str, name: str) -> dict:
        """The request of a prepared dataset or model.

        Args:
            kind: `dataset` or `model`.
            name: The entry's name.

        Raises:
            ConfigError: the model is pre-trained on a dataset that has no entry.
        """
        return job_requests.input_request(self, kind, name)

    @functools.cache  # noqa: B019
    def input_digest(self, kind: str, name: str) -> str:
        """The digest of the request of a prepared input; requests of training runs hold it.

        Args:
            kind: `dataset` or `model`.
            name: The entry's name.

        Raises:
            ConfigError: the model is pre-trained on a dataset that has no entry.
        """
        return provenance.digest(self.input_request(kind, name))

    def digests(self, script: str, *modules: str) -> dict[str, str]:
        """Digests of the sources of a script, and of the modules that it loads by name.

        Args:
            script: The script's name without `.py`.
            *modules: Dotted names of modules that no import statement of the script shows.

        Returns:
            Source -> digest.
        """
        file = self.workflow / provenance.SCRIPT_DIR / f"{script}.py"
        return provenance.code_digests(file, modules)

    @functools.cache  # noqa: B019
    def environment(self, name: str) -> dict[str, str]:
        """A lock file and the digest of its pins."""
        lock = f"envs/{name}.lock"
        return {"lock": lock, "digest": lock_digest(self.workflow / lock)}


def _models(study: dict) -> list[str]:
    """The models that the grids of a study name."""
    grids = (*study["train"], *study["profile"])
    return list(dict.fromkeys(model for grid in grids for model in grid["models"]))


def read_plan(project: Path, study: str | None = None) -> Plan:
    """The plan of a study from its file.

    Args:
        project: The folder that the user works in.
        study: The study's file, relative to the project; config/config.yaml if None.

    Raises:
        ConfigError: there is no such file, or the study is wrong.
    """
    name = study or DEFAULT_STUDY
    file = paths.find(project, name)
    return Plan(read_yaml(file, name), project, study_file([file], project))


def results_folder(file: str, name: str) -> str:
    """The folder of a study's files, relative to the project.

    Args:
        file: The study's file, relative to the project.
        name: The study's name.

    Raises:
        ConfigError: the name cannot be that of a folder in results/.
    """
    if file == DEFAULT_STUDY:
        return RESULTS
    if name in TAKEN:
        allowed = f"a name that is not of a part of {RESULTS}/: not {', '.join(sorted(TAKEN))}"
        raise ConfigError(file, "name", name, allowed)
    return f"{RESULTS}/{name}"


def study_file(given: Iterable[object], root: Path) -> str:
    """The name of the study's file in messages: relative to the project, or its name alone.

    Args:
        given: The files on Snakemake's command line; the workflow's own study if empty.
        root: The project's folder.
    """
    default = paths.workflow_root(root) / DEFAULT_STUDY
    path = Path(next(iter(given), default)).resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name
