"""Write a merged model: one of the base's own modules, which transformers opens.

transformers drops a tensor that the model's class has not. So a merged model with one is refused:
before the first update, by a merge of shapes alone, and again when the model is written.
"""

from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from rankwise.methods.parts.base import Method, adapt
from rankwise.models import build, storage


def check_merges(request: dict) -> None:
    """Check before the first update that the run's method will give a merged model.

    A merge that needs numbers, as a method of the user's own may, is checked when it is written.

    Args:
        request: Of the training run, with the method's settings as they are used.

    Raises:
        Unsupported: The method cannot adapt the model.
        ValueError: It does not merge, or transformers would not read all of the model.
    """
    dataset, entry = request["dataset"], request["method"]
    task, classes = dataset["task"], len(dataset.get("classes", []))
    names = build.names(request["model"], task)
    base = build.from_shapes(request["model"], task, classes, "meta")
    precision = storage.DTYPES[request["schedule"]["precision"]]
    # Methods create their parameters without naming a device, so the default device is set. The
    # run's own random numbers stay as they are.
    with torch.random.fork_rng([]), torch.device("meta"):
        stored = storage.store(base, entry["weights"], names, precision, entry.get("compute"))
        try:
            method, model = adapt(entry, stored, names)
            merged = method.merge(model)
        except (NotImplementedError, RuntimeError):  # what tensors without numbers raise
            return
    _check(method, merged)


def write_merged(method: Method, model: nn.Module, target: Path) -> None:
    """Write one model of the base's own modules, as transformers does.

    Args:
        method: The run's method.
        model: The adapted model, which is used up.
        target: The folder.

    Raises:
        ValueError: The method does not merge, or transformers would not read all of the model.
    """
    merged = method.merge(model)
    _check(method, merged)
    merged.save_pretrained(target)


def _check(method: Method, merged: PreTrainedModel | None) -> None:
    """Check that there is a merged model, and that transformers reads every tensor of it."""
    if merged is None:
        raise ValueError(
            f"keep: got merged with {type(method).__name__}, allowed: adapter or none, because no "
            "model of the base's own modules gives its answers"
        )
    with torch.device("meta"):
        readable = type(merged)(merged.config).state_dict()
    for name in merged.state_dict():
        if name not in readable:
            raise ValueError(
                f"keep: got merged with the tensor {name}, which transformers would not read, "
                "allowed: adapter or none"
            )
