"""The requests of jobs that write a result: the JSON that decides the result, and nothing that does
not.

Snakemake reruns a job if its request has changed. So a request has everything that the result
depends on (settings, digests of the sources that run, the lock, digests of the inputs' requests),
and leaves out everything else: a profile's request has no learning rate, for example. Standard
library only.
"""

from typing import TYPE_CHECKING

from rankwise.core import metrics, plugins, store, tasks
from rankwise.core.config import pick, without
from rankwise.core.metrics import METRICS
from rankwise.study import grids, measurements, search
from rankwise.study.evaluations import HARNESS
from rankwise.study.grids import Cell
from rankwise.study.measurements import EVALUATE, FOLDERS, PREDICT, TIMED
from rankwise.study.resolve import DENSE
from rankwise.study.study_grids import COSMETIC

if TYPE_CHECKING:
    from rankwise.study.plan import Plan

NO_SHAPE = (*COSMETIC["models"], "weights")  # keys of a model that a profile does not depend on
QUANTIZED = "rankwise.models.quantized"  # the storage of weights that are not dense
CHUNKED_LOSS = "rankwise.models.chunked_loss"  # every loss but the full one
GROUPED = "rankwise.data.grouped"  # batches by length
# Trainings and profiles with `precision: fp16`.
TRAINING_LOSS_SCALING = "rankwise.training.loss_scaling"
PROFILE_LOSS_SCALING = "rankwise.measure.loss_scaling"
FLASH_SHAPES = "rankwise.measure.memory.flash_attention"  # profiles with `attention: flash`
DETERMINISM = "rankwise.training.determinism"  # studies with `deterministic: true`
# A setting of a profile -> the module that it loads by name.
PROFILE_MODULES = {
    "processes": "rankwise.measure.memory.per_process",  # what one of several holds
    "loss_input": "rankwise.measure.loss_input",  # what the loss reads, if not fp32
    "keeps_softmax_inputs": "rankwise.measure.softmax_inputs",
    "keeps_quantized_inputs": "rankwise.measure.quantized_inputs",
    "masks": "rankwise.measure.number_masks",
    "quantized_from": "rankwise.measure.quantized_from",
    "modules": "rankwise.measure.litgpt_modules",
    "adapted_on_gpu": "rankwise.measure.host_buffers",
    "generated_tokens": "rankwise.measure.generation",
}
DATASET_LENGTHS = "rankwise.measure.memory.dataset_lengths"  # profiles at a dataset's own lengths


def cell_request(plan: "Plan", measurement: str, cell: Cell) -> dict:
    """The request of a training run, a trial, an evaluation or a profile.

    Args:
        plan: The plan of the study.
        measurement: A key of `FOLDERS` for a training run or a trial; `evaluate`; otherwise a
            profile's name.
        cell: A cell of this measurement.

    Raises:
        KeyError: the study does not ask for this measurement of the cell.
    """
    trains = measurement in FOLDERS
    # A profile that measures no machine runs in the CPU's environment, whatever the study's is.
    has_study_environment = trains or measurement == EVALUATE or plan.needs_gpu(measurement, cell)
    environment = plan.study["environment"] if has_study_environment else "cpu"
    specific = _training_request if trains else _profile_request
    if measurement == EVALUATE:
        specific = _evaluation_request
        # The harness has a lock of its own, so that a new one trains nothing. gpu.lock has it too.
        if plan.evaluation_entry(cell)["kind"] == HARNESS and environment == "cpu":
            environment = "eval"
    return {
        "measurement": measurement,
        "cell": cell.names,
        "environment": plan.environment(environment),
        **specific(plan, measurement, cell),
    }


def _training_request(plan: "Plan", measurement: str, cell: Cell) -> dict:
    grid = plan.grids.by_measurement[measurement][cell]
    follows_search = measurement == "train" and plan.is_searched(cell.curve)
    method = plan.method(measurement, cell)
    task = plan.library["datasets"][cell.dataset]["task"]
    schedule = plan.grids.schedule(grid)
    # The schedule of a trial may be another one than that of the runs that follow.
    changes = grid["search"]["schedule"] if measurement == "trial" else {}
    loaded = [*_task_modules(task), *_training_modules({**schedule, **changes})]
    if follows_search:
        loaded.append(search.SETTLED)
    deterministic = _determinism(plan)
    if deterministic:
        loaded.append(DETERMINISM)
    request = {
        "model": plan.model_entry(cell.model),
        "method": method,
        "dataset": plan.dataset_entry(cell.dataset),
        "schedule": schedule,
        "inputs": _inputs(plan, cell),
        "device": plan.study["device"],
        "cpu_threads": plan.study["cpu_threads"],
        **deterministic,
        "code": _code(plan, measurement, method, *loaded),
    }
    if measurement == "train":
        request["keep"] = plan.grids.keep(cell)
    trials = plan.grids.trials.get(cell.curve)
    if measurement == "trial":
        return search.trial_request(request, grid["search"]["schedule"], trials[cell.trial])
    if follows_search:
        return search.open_request(request, trials, plan.choice(cell.curve))
    return request


def _inputs(plan: "Plan", cell: Cell) -> dict[str, str]:
    """The digests of the prepared dataset and model of a cell."""
    return {
        "dataset": plan.input_digest("dataset", cell.dataset),
        "model": plan.input_digest("model", cell.model),
    }


def _evaluation_request(plan: "Plan", measurement: str, cell: Cell) -> dict:
    """An evaluation loads the weights that a training run kept, which it names by its digest."""
    run = cell.run
    digest = plan.cell_digest("train", run)
    entry = plan.evaluation_entry(cell)
    inputs = {"model": plan.input_digest("model", run.model)}
    tasks_read = [plan.library["datasets"][run.dataset]["task"]]
    request = {}
    if "dataset" in entry:
        request["dataset"] = plan.dataset_entry(entry["dataset"])
        inputs["dataset"] = plan.input_digest("dataset", entry["dataset"])
        tasks_read.append(request["dataset"]["task"])
    loaded = [f"rankwise.evaluation.{entry['kind']}"]
    for task in tasks_read:
        loaded += _task_modules(task)
    if plan.is_searched(cell.curve):
        loaded.append(search.SETTLED)
    deterministic = _determinism(plan)
    if deterministic:
        loaded.append(DETERMINISM)
    return {
        **request,
        "evaluation": entry,
        "run": {"result": store.cell_place("train", run.names, digest), "digest": digest},
        "inputs": inputs,
        "device": plan.study["device"],
        "cpu_threads": plan.study["cpu_threads"],
        **deterministic,
        "code": _code(plan, measurement, plan.method(measurement, cell), *loaded),
    }


def _profile_request(plan: "Plan", measurement: str, cell: Cell) -> dict:
    """A profile depends on shapes, so new weights, data or learning rates do not rerun it.

    One that takes its lengths from a dataset depends on the data and the model's tokenizer, too.
    """
    grid = plan.grids.by_measurement[measurement][cell]
    if measurement == PREDICT:  # of a training run, whose batch size is in its schedule
        grid = {**grid, **plan.grids.schedule(grid)}
    dataset = plan.library["datasets"][cell.dataset]
    tokens = grids.tokens(plan.library, grid, cell.dataset)
    method = without(plan.method(measurement, cell), ("learning_rate",))
    target = {key: grid[key] for key in ("target_length_tokens",) if key in grid}
    settings = measurements.settings(measurement, grid, plan.study, dataset, tokens)
    loaded = _schedule_modules(settings)
    loaded += [module for key, module in PROFILE_MODULES.items() if settings.get(key)]
    if settings.get("attention") == "flash":
        loaded.append(FLASH_SHAPES)
    if settings.get("precision") == "fp16":
        loaded.append(PROFILE_LOSS_SCALING)
    deterministic = _determinism(plan) if measurement in TIMED else {}
    if deterministic:
        loaded.append(DETERMINISM)
    data = {}
    if "lengths" in settings:
        loaded += [DATASET_LENGTHS, *_task_modules(dataset["task"])]
        loaded += _schedule_modules(settings["lengths"])
        data = {"dataset": plan.dataset_entry(cell.dataset), "inputs": _inputs(plan, cell)}
    return {
        **data,
        "model": without(plan.library["models"][cell.model], NO_SHAPE),
        "method": method,
        "shapes": {
            "task": dataset["task"],
            "classes": len(dataset.get("classes", [])),
            # Of one process: what it holds is predicted.
            "batch_size": grid["batch_size"] // grid.get("processes", 1),
            "sequence_length_tokens": tokens,
            **target,
        },
        # Which model is built, and what its labels are. A profile scores nothing, so it depends on
        # no more of the task.
        "task_facts": without(tasks.facts(dataset["task"])._asdict(), ("name", "metrics")),
        "code": _code(plan, measurement, method, *loaded),
        **deterministic,
        **settings,
    }


def choice_request(plan: "Plan", curve: Cell) -> dict:
    """The request of the choice among the trials of a curve.

    Trials and seeds are sorted, so that their order in the study does not matter.

    Args:
        plan: The plan of the study.
        curve: A curve with a search.

    Raises:
        KeyError: the curve has no search.
    """
    seeds = sorted(plan.grids.training_grids[curve]["search"]["seeds"])
    trials = []
    for trial in sorted(plan.grids.trials[curve]):
        for seed in seeds:
            cell = curve._replace(trial=trial, seed=seed)
            digest = plan.cell_digest("trial", cell)
            result = store.cell_place("trial", cell.names, digest)
            trials.append({"trial": trial, "result": result, "digest": digest})
    return {
        "measurement": "choose",
        "cell": curve.names,
        "environment": plan.environment(plan.study["environment"]),
        "trials": trials,
        "code": plan.digests("choose"),
    }


def input_request(plan: "Plan", kind: str, name: str) -> dict:
    """The request of a prepared dataset or model.

    Args:
        plan: The plan of the study.
        kind: `dataset` or `model`.
        name: The entry's name.

    Raises:
        ConfigError: the model is pre-trained on a dataset that has no entry.
    """
    entry = plan.dataset_entry(name) if kind == "dataset" else plan.model_entry(name)
    request = {kind: entry, "name": name, "environment": plan.environment("cpu")}
    if kind == "model" and "pretrain" in entry["weights"]:
        return {**request, **_pretraining_request(plan, name)}
    return {**request, "code": plan.digests(f"prepare_{kind}")}


def _pretraining_request(plan: "Plan", model: str) -> dict:
    """The further parts of a pre-trained model's request: its corpus and task."""
    corpus = plan.corpus(model)
    key = f"{model}.weights.pretrain.dataset"
    task = pick(plan.library["datasets"], corpus, "config/models.yaml", key)["task"]
    schedule = plan.library["models"][model]["weights"]["pretrain"]["schedule"]
    return {
        "dataset": plan.dataset_entry(corpus),
        "inputs": {"dataset": plan.input_digest("dataset", corpus)},
        "code": plan.digests("pretrain_model", *_task_modules(task), *_training_modules(schedule)),
    }


def _determinism(plan: "Plan") -> dict[str, bool]:
    """The key of a request by which it computes with deterministic kernels; absent by default."""
    return {"deterministic": True} if plan.study["deterministic"] else {}


def _task_modules(task: str) -> list[str]:
    """The modules that a run of a task loads by name: the task's, and those of its own metrics."""
    own = [name for name in tasks.facts(task).metrics if METRICS[name].is_own]
    return [tasks.module(task), *map(metrics.module, own)]


def _training_modules(schedule: dict) -> list[str]:
    """The modules that a training loads by name, of those that a schedule asks for."""
    scaling = [TRAINING_LOSS_SCALING] if schedule["precision"] == "fp16" else []
    return [*_schedule_modules(schedule), *scaling]


def _schedule_modules(settings: dict) -> list[str]:
    """The modules that a run with a schedule's settings, or a profile's, loads by name."""
    modules = []
    if settings.get("loss", "full") != "full":
        modules.append(CHUNKED_LOSS)
    if settings.get("group_by_length"):
        modules.append(GROUPED)
    return modules


def _code(plan: "Plan", script: str, method: dict, *others: str) -> dict[str, str]:
    """Digests of the script's sources, and of the modules that it loads by name for a method."""
    named = (("methods", method["module"]), ("optim", method["optimizer"]["module"]))
    modules = [plugins.module_name(plugins.source_name(*name)) for name in named]
    if method["weights"] not in DENSE:
        modules.append(QUANTIZED)
    return plan.digests(script, *modules, *others)
