"""The evaluations of a study: which task is asked of which training run's weights.

A grid of the study's section `evaluate` names entries of config/evaluations.yaml. It applies to
every training cell whose weights are kept, and to methods that train nothing, whose weights are
those of the base model. Standard library only: the Snakefile imports this module.
"""

import math
from importlib import metadata
from typing import TYPE_CHECKING

from rankwise.core import tasks
from rankwise.core.config import ConfigError, pick, without
from rankwise.core.paths import PACKAGE
from rankwise.core.yaml_files import read_yaml
from rankwise.study import grids
from rankwise.study.grids import Cell

if TYPE_CHECKING:
    from rankwise.study.plan import Plan

FILE = "config/evaluations.yaml"
HARNESS_PACKAGE, HARNESS_VERSION = "lm_eval", "0.4.13"
HARNESS, PATTERN, GENERATION, MEAN = "harness", "answer_pattern", "generation", "mean"
INSTRUCTIONS = "instruction_tuning"  # the task of the datasets that `generation` reads
CAUSAL = "AutoModelForCausalLM"  # what a model must be to score or write text
COSMETIC = ("note", "source")
FEW_SHOT_ROWS = "few_shot_rows"  # decides no result: it only limits `few_shot`
# Kind -> the keys that an entry must have, and those that it may have beside them.
KEYS = {
    HARNESS: (("metric", "task"), ("hub", "files", "few_shot", FEW_SHOT_ROWS)),
    PATTERN: (("files", "pattern", "max_new_tokens"), ("take", "number", "beams", "stop")),
    GENERATION: (("dataset", "max_new_tokens"), ("split", "stop")),
    MEAN: (("evaluations",), ()),
}
OF_ALL_KINDS = ("kind", "limit", "batch_size", *COSMETIC)
# Values that an entry of a kind has if it does not give them.
DEFAULTS = {
    HARNESS: {"few_shot": 0},
    PATTERN: {"take": "first", "number": False, "beams": 4, "metric": "accuracy_fraction"},
    GENERATION: {"metric": "exact_match_fraction"},
}
OVERRIDDEN = ("limit", "few_shot", "batch_size")  # keys of an entry that a grid may set
NARROWING = ("models", "datasets", "methods", "ranks", "seeds")
TASKS_FOLDER = PACKAGE / "evaluation" / "harness_tasks"


class Evaluations:
    """The evaluations that a study asks for.

    Args:
        plan: The plan of the study, whose training cells are known.
        sections: The grids of the section `evaluate`.

    Attributes:
        cells: Cell -> the resolved entry that it asks, in the study's order.
        means: Name of an entry of the kind `mean` -> the evaluations that it is the mean of, of
            the entries that the study names.
        notes: A sentence for each grid that leaves out cells whose weights are not kept.

    Raises:
        ConfigError: A grid or an entry is wrong.
    """

    def __init__(self, plan: "Plan", sections: list[dict]):
        self._plan = plan
        self.cells: dict[Cell, dict] = {}
        self.means: dict[str, list[str]] = {}
        self.notes: list[str] = []
        self._entries: dict[str, dict] = {}  # name -> resolved, the same in every grid
        for number, grid in enumerate(sections):
            self._add(grid, f"evaluate.{number}")

    def datasets(self) -> list[str]:
        """The prepared datasets that the evaluations read."""
        return [entry["dataset"] for entry in self.cells.values() if "dataset" in entry]

    def main_metrics(self) -> dict[str, str]:
        """Evaluation -> the metric by which curves are compared, means included."""
        metrics = {cell.evaluation: entry["metric"] for cell, entry in self.cells.items()}
        for name, parts in self.means.items():
            metrics[name] = metrics[parts[0]]
        return metrics

    def _add(self, grid: dict, key: str) -> None:
        runs = self._runs(grid, key)
        for name in self._names(grid, key):
            entry = self._resolved(name, grid, key)
            if self._entries.setdefault(name, entry) != entry:
                got = f"{name} with other settings than in an earlier grid of evaluate"
                allowed = f"one setting of an evaluation in a study, or another entry of {FILE}"
                raise ConfigError(self._plan.file, f"{key}.tasks", got, allowed)
            for run in runs:
                self._check_room(run, name, entry)
                self.cells[run._replace(evaluation=name)] = entry

    def _check_room(self, run: Cell, name: str, entry: dict) -> None:
        """Check that the model has a position for a prompt beside the tokens to generate."""
        positions = self._plan.library["models"][run.model]["max_positions_tokens"]
        if entry.get("max_new_tokens", 0) >= positions:
            allowed = f"below {positions}, the positions of {run.model}"
            raise ConfigError(FILE, f"{name}.max_new_tokens", entry["max_new_tokens"], allowed)

    # Runs -----------------------------------------------------------------------------------------

    def _runs(self, grid: dict, key: str) -> list[Cell]:
        """The training cells that a grid is about."""
        plan = self._plan
        trained = plan.cells("train")
        self._check_narrowing(grid, key, trained)
        chosen = [cell for cell in trained if _is_chosen(cell, grid)]
        if not chosen:
            got = "no training cell" if trained else "a study that trains nothing"
            allowed = "models, datasets, methods, ranks and seeds of cells that the study trains"
            raise ConfigError(plan.file, key, got, allowed)
        for cell in chosen:
            self._check_head(cell, key)
        kept = [cell for cell in chosen if self._is_kept(cell)]
        lost = list(dict.fromkeys(cell.method_name for cell in chosen if cell not in kept))
        if lost and (not kept or grid["methods"] != grids.ALL):
            allowed = (
                "methods whose runs keep their weights; set keep: adapter or keep: merged in the "
                "grid that trains them, or leave them out of evaluate"
            )
            raise ConfigError(plan.file, f"{key}.methods", ", ".join(lost), allowed)
        if lost:
            self.notes.append(
                f"{plan.file}: {key}: not evaluated, since their runs keep no weights: "
                f"{', '.join(lost)}; keep: adapter or keep: merged keeps them"
            )
        return kept

    def _check_narrowing(self, grid: dict, key: str, trained: list[Cell]) -> None:
        """Check that each name and number of a grid is that of a training cell."""
        known = {
            "models": [cell.model for cell in trained],
            "datasets": [cell.dataset for cell in trained],
            "methods": [name for cell in trained for name in (cell.method, cell.method_name)],
            "ranks": [cell.rank for cell in trained],
            "seeds": [cell.seed for cell in trained],
        }
        for name in NARROWING:
            values = grid.get(name, grids.ALL)
            allowed = list(dict.fromkeys(known[name]))
            for value in () if values == grids.ALL else values:
                if value not in allowed:
                    listed = ", ".join(map(str, allowed)) or "none"
                    text = f"{name} that the study trains: {listed}"
                    raise ConfigError(self._plan.file, f"{key}.{name}", value, text)

    def _check_head(self, cell: Cell, key: str) -> None:
        task = self._plan.library["datasets"][cell.dataset]["task"]
        if tasks.facts(task).auto_class != CAUSAL:
            allowed = (
                f"datasets of tasks with a language-model head ({CAUSAL}); that of {cell.dataset} "
                f"is {task}"
            )
            raise ConfigError(self._plan.file, f"{key}.datasets", cell.dataset, allowed)

    def _is_kept(self, run: Cell) -> bool:
        """Whether a run's weights can be loaded: it keeps them, or trains nothing."""
        if not self._plan.method("train", run)["learning_rate"]:
            return True
        return self._plan.request("train", run).get("keep", "none") != "none"

    # Entries --------------------------------------------------------------------------------------

    def _names(self, grid: dict, key: str) -> list[str]:
        """The entries that a grid names; a mean stands for the evaluations that it is made of."""
        entries = self._plan.library["evaluations"]
        names: dict[str, None] = {}
        for name in grid["tasks"]:
            entry = pick(entries, name, self._plan.file, f"{key}.tasks")
            check_entry(name, entry)
            parts = [name]
            if entry["kind"] == MEAN:
                self.means[name] = parts = self._parts(name, entry)
            names |= dict.fromkeys(parts)
        return list(names)

    def _parts(self, name: str, entry: dict) -> list[str]:
        """The evaluations that a mean is made of; all have one metric."""
        entries = self._plan.library["evaluations"]
        metrics = {}
        for part in entry["evaluations"]:
            other = pick(entries, part, FILE, f"{name}.evaluations")
            check_entry(part, other)
            if other["kind"] == MEAN:
                raise ConfigError(FILE, f"{name}.evaluations", part, "evaluations that are no mean")
            metrics[part] = {**DEFAULTS[other["kind"]], **other}["metric"]
        if len(set(metrics.values())) > 1:
            got = ", ".join(f"{part} with {metric}" for part, metric in metrics.items())
            raise ConfigError(FILE, f"{name}.evaluations", got, "evaluations with one metric")
        return list(metrics)

    def _resolved(self, name: str, grid: dict, key: str) -> dict:
        """An entry with its defaults, the grid's own values, and the task of the harness."""
        given = self._plan.library["evaluations"][name]
        kind = given["kind"]
        set_here = {key: grid[key] for key in OVERRIDDEN if key in grid}
        if "few_shot" in set_here and kind != HARNESS:
            allowed = f"few_shot for tasks of the harness; {name} is {kind}"
            raise ConfigError(self._plan.file, f"{key}.few_shot", grid["few_shot"], allowed)
        entry = without({**DEFAULTS[kind], **given, **set_here}, (*COSMETIC, FEW_SHOT_ROWS))
        if kind == GENERATION:
            return self._with_split(name, entry)
        if kind != HARNESS:
            return entry
        where = (self._plan.file, f"{key}.few_shot")
        where = where if "few_shot" in set_here else (FILE, f"{name}.few_shot")
        if entry["few_shot"] and "files" in entry and "few_shot" not in entry["files"]:
            allowed = f"0: {name} has no files.few_shot to take examples from"
            raise ConfigError(*where, entry["few_shot"], allowed)
        most = given.get(FEW_SHOT_ROWS, math.inf)
        if entry["few_shot"] > most:
            allowed = f"at most {most}, {name}.{FEW_SHOT_ROWS} of {FILE}"
            raise ConfigError(*where, entry["few_shot"], allowed)
        entry["harness"] = {"package": HARNESS_PACKAGE, "version": HARNESS_VERSION}
        if "files" in entry:
            entry["task_config"] = task_config(name, entry["task"])
        return entry

    def _with_split(self, name: str, entry: dict) -> dict:
        """An entry of the kind `generation` with its split."""
        datasets = self._plan.library["datasets"]
        dataset = pick(datasets, entry["dataset"], FILE, f"{name}.dataset")
        if dataset["task"] != INSTRUCTIONS:
            allowed = f"a dataset of the task {INSTRUCTIONS}; its task is {dataset['task']}"
            raise ConfigError(FILE, f"{name}.dataset", entry["dataset"], allowed)
        return {"split": dataset["report_split"], **entry}


def _is_chosen(cell: Cell, grid: dict) -> bool:
    """Whether a grid's models, datasets, methods, ranks and seeds are those of a training cell."""
    values = {
        "models": {cell.model},
        "datasets": {cell.dataset},
        "methods": {cell.method, cell.method_name},
        "ranks": {cell.rank},
        "seeds": {cell.seed},
    }
    for name in NARROWING:
        wanted = grid.get(name, grids.ALL)
        # A method without a rank is there once, whatever ranks a grid names.
        if wanted == grids.ALL or (name == "ranks" and cell.rank == 0):
            continue
        if values[name].isdisjoint(wanted):
            return False
    return True


def check_entry(name: str, entry: dict) -> None:
    """Check rules between the keys of an entry that its schema cannot express in one sentence.

    Args:
        name: The entry's name in config/evaluations.yaml.
        entry: The entry.

    Raises:
        ConfigError: A key is missing, or is of another kind.
    """
    kind = entry["kind"]
    needed, optional = KEYS[kind]
    for key in needed:
        if key not in entry:
            raise ConfigError(FILE, f"{name}.{key}", "nothing", f"a value: {kind} needs it")
    for key, value in entry.items():
        if key not in (*needed, *optional, *OF_ALL_KINDS, "metric"):
            allowed = f"keys of the kind {kind}: {', '.join((*needed, *optional))}"
            raise ConfigError(FILE, f"{name}.{key}", value, allowed)
    if kind == HARNESS and ("hub" in entry) == ("files" in entry):
        got = "both" if "hub" in entry else "neither"
        raise ConfigError(FILE, name, got, "exactly one of hub and files")


def task_config(name: str, task: str) -> dict:
    """The configuration of one of this project's tasks for the harness.

    Args:
        name: The evaluation, for messages.
        task: The task's name: a file of `rankwise/evaluation/harness_tasks`.

    Raises:
        ConfigError: There is no such file.
    """
    file = TASKS_FOLDER / f"{task}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in TASKS_FOLDER.glob("*.yaml")))
        raise ConfigError(FILE, f"{name}.task", task, f"tasks for files: {known}")
    return read_yaml(file, f"harness_tasks/{task}.yaml")


def missing_harness() -> str | None:
    """Why lm-evaluation-harness cannot be used here, and how to install it; None if it can."""
    try:
        found = metadata.version(HARNESS_PACKAGE)
    except metadata.PackageNotFoundError:
        found = "nothing"
    if found == HARNESS_VERSION:
        return None
    return (
        f"{HARNESS_PACKAGE}: got {found}, allowed: {HARNESS_VERSION}, for evaluations of the kind "
        f"{HARNESS}; install it: python -m pip install {HARNESS_PACKAGE}=={HARNESS_VERSION}"
    )
