"""One training run, from its request to its result. The loop itself is in loop.py."""

import importlib
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch import nn

from rankwise.core import progress, tracker
from rankwise.core.errors import Unsupported
from rankwise.core.kernels import kernels
from rankwise.data.prepared import data_facts, load_data, model_folder
from rankwise.methods.parts.base import adapt, build_optimizer, set_parameters
from rankwise.models import build, check, memory_errors, storage
from rankwise.optim.parts.waiting import trains
from rankwise.training.checkpoint import Checkpoint
from rankwise.training.divergence import Diverged
from rankwise.training.keeping import MERGED, keep
from rankwise.training.loop import Loop
from rankwise.training.merging import check_merges
from rankwise.training.start import start


def train(request: dict, folder: Path | None = None) -> dict:
    """Fine-tune one cell and report on its dataset's reported split.

    If the study searches for the cell's settings, the run uses the settings that the search chose.

    Args:
        request: The cell's `train` request.
        folder: The result's folder, for the weights that the request keeps (`keeping.keep`). If
            None, nothing is kept.

    Returns:
        `metrics` of the selected state on the reported split, `history`, `examples`, `cost`,
        `split`, and `data`, the counts of its rows; `weights`, if the run keeps any; after a search
        also `selected`, the chosen settings. A run that ends out of memory, diverged or unsupported
        has `status` and `reason` instead, and a diverged one also `diverged`: `update`, `what` was
        not finite, and `parameter`.
    """
    if "search" not in request["inputs"]:
        return _run(request, folder, request)
    # Imported by name: a static import would put the search code into the source digest of every
    # run, and an edit of it would rerun studies that do not search.
    search_choice = importlib.import_module("rankwise.study.search_choice")
    settled_request, choice = search_choice.settle(request)
    if "status" in choice:  # the search itself failed
        return choice
    return {**_run(settled_request, folder, request), **choice}


def trial(request: dict) -> dict:
    """Run one trial of a search.

    A trial is a training run that reports on the selection split, so it never reads the test split.
    It keeps no weights.

    Args:
        request: The cell's `trial` request.

    Returns:
        The same as `train`, without `examples`: nothing compares the examples of a trial.
    """
    result = _run(request, None, request)
    result.pop("examples", None)
    return result


def _run(request: dict, folder: Path | None, planned: dict) -> dict:
    """Train, and turn the three ways in which a run may fail into results with a reason.

    Args:
        request: The request, with the settings that a search chose.
        folder: Where weights are kept, if any are.
        planned: The request as it was planned, which names the checkpoint.
    """
    torch.set_num_threads(request["cpu_threads"])
    with Checkpoint(planned) as checkpoint:
        try:
            checkpoint.group.check_count(request["schedule"]["processes"])
            checkpoint.group.join(request["device"])
            with kernels(request):
                return _fine_tune(request, folder, checkpoint)
        except Diverged as error:
            return {"status": "diverged", "reason": str(error), "diverged": error.details}
        except Unsupported as error:
            return {"status": "unsupported", "reason": str(error)}
        except memory_errors.ERRORS as error:
            return memory_errors.result(error)


def _fine_tune(request: dict, folder: Path | None, checkpoint: Checkpoint) -> dict:
    dataset, schedule, entry = request["dataset"], request["schedule"], request["method"]
    task, seed = dataset["task"], request["cell"]["seed"]
    classes = len(dataset.get("classes", []))
    progress.doing(f"loading the model {request['cell']['model']}")
    base_folder = model_folder(request)
    build.check_room(request["model"], task, classes, "cpu")
    expected = build.checked_from_shapes(request["model"], task, classes)
    if request.get("keep") == MERGED:
        check_merges(request)
    tokenizer = build.tokenizer(base_folder)
    progress.doing(f"loading the dataset {request['cell']['dataset']}")
    data = load_data(request, tokenizer, seed)
    set_seed(seed)  # before the model is built, so that a new head is the same under every method
    names = build.names(request["model"], task)
    attention = schedule.get("attention")
    base = build.from_snapshot(base_folder, task, classes, names["new_head"], attention)
    # A KV cache serves generation, which asks for it by itself.
    config, use_cache = base.config, getattr(base.config, "use_cache", False)
    config.use_cache = False
    where = f"config/models.yaml: {request['cell']['model']}"
    check.same_model(base, expected, where)
    check.covers(base, tokenizer, where)
    total_parameters = sum(param.numel() for param in base.parameters())
    started, start_cost = start(request, base, names, data, checkpoint.start_file, checkpoint.group)
    precision = storage.DTYPES[schedule["precision"]]
    base = storage.store(base, entry["weights"], names, precision, entry.get("compute"))
    method, model = adapt(entry, base, names)
    set_parameters(model, started)
    check.trains_new_head(model, names["new_head"], where)
    if schedule["checkpointing"]:
        build.checkpoint(model)
    # Seeded again, so that dropout does not depend on how many numbers the method drew.
    set_seed(seed)
    tracking = tracker.of_run(tracker.run_name(request["cell"]), request)
    loop = Loop(model, method, data, schedule, request["device"], checkpoint, tracking)
    optimizer = None
    if _trainable(model):
        optimizer = build_optimizer(entry, method, model, names, seed)
    progress.doing(f"training on {len(data.train):,} examples")
    result = loop.run(optimizer, seed)
    # Counted after the run: a method may change the shapes of its parameters while it trains.
    result["metrics"]["trainable_parameters"] = sum(param.numel() for param in _trainable(model))
    result["metrics"]["total_parameters"] = total_parameters
    result["cost"] |= start_cost
    result["split"] = dataset["report_split"]
    result["data"] = {**data_facts(request), **({"cut": data.cut} if data.cut else {})}
    if folder is not None:
        # The last thing to do, because merging uses the model up. The loop has left the state in it
        # that the metrics belong to.
        config.use_cache = use_cache
        result |= keep(request, folder, method, model, base_folder)
    return result


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [param for param in model.parameters() if trains(param)]
