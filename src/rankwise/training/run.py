"""One cell's training: from its request to its result. The loop itself is loop.py."""

import importlib

import torch
from accelerate.utils import set_seed
from torch import nn

from rankwise.core.errors import Unsupported
from rankwise.data.prepared import load_data, model_folder
from rankwise.methods.parts.base import adapt, build_optimizer
from rankwise.models import build, storage
from rankwise.training.checkpoint import Checkpoint
from rankwise.training.loop import Loop
from rankwise.training.progress import Diverged

COMPUTE = {"fp32": torch.float32, "bf16": torch.bfloat16}


def train(request: dict) -> dict:
    """Fine-tune one cell; the result's metrics are those of the selected state on the reported split.

    After a search it has the settings that the search chose: `selected` in the result. Out of memory, a diverged loss and an
    unsupported method are results, with a reason.
    """
    if "search" not in request["inputs"]:
        return _outcome(request)
    settled, says = importlib.import_module("rankwise.study.search_choice").settle(
        request
    )  # by name: an edit of it reruns no other runs
    return says if "status" in says else {**_outcome(settled), **says}


def trial(request: dict) -> dict:
    """Fine-tune one trial of a search: its request's reported split is the selection slice, and no example's score is kept."""
    return {name: part for name, part in _outcome(request).items() if name != "examples"}


def _outcome(request: dict) -> dict:
    torch.set_num_threads(request["cpu_threads"])
    with Checkpoint(request) as checkpoint:
        try:
            return _train(request, checkpoint)
        except torch.cuda.OutOfMemoryError as error:
            return {"status": "out_of_memory", "reason": str(error).splitlines()[0]}
        except Diverged as error:
            return {"status": "diverged", "reason": str(error)}
        except Unsupported as error:
            return {"status": "unsupported", "reason": str(error)}


def _train(request: dict, checkpoint: Checkpoint) -> dict:
    cell, task, seed = request["cell"], request["dataset"]["task"], request["cell"]["seed"]
    folder = model_folder(request)
    build.check_room(request["model"], task, len(request["dataset"].get("classes", [])), "cpu")
    set_seed(seed)  # before the model, so that a new head starts alike under every method
    model = build.from_snapshot(folder, task, len(request["dataset"].get("classes", [])))
    total = sum(p.numel() for p in model.parameters())
    names = build.names(request["model"], task)
    model = storage.store(
        model, request["method"]["weights"], names, COMPUTE[request["schedule"]["precision"]]
    )
    method, model = adapt(request["method"], model, names)
    if request["schedule"]["checkpointing"]:
        build.checkpoint(model)
    data = load_data(request, build.tokenizer(folder), seed)
    set_seed(seed)  # again, so that dropout does not depend on what the method drew
    loop = Loop(
        model, method, data, request["schedule"], request["device"], checkpoint, tracking=cell
    )
    outcome = loop.run(
        build_optimizer(request["method"], method, model, names, seed)
        if _trainable(model)
        else None,
        seed,
    )
    sizes = {
        "trainable_parameters": sum(p.numel() for p in _trainable(model)),
        "total_parameters": total,
    }
    return {
        **outcome,
        "metrics": {**outcome["metrics"], **sizes},
        "split": request["dataset"]["report_split"],
    }


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [param for param in model.parameters() if param.requires_grad]
