"""One evaluation, from its request to its result: the weights of a run, asked one task."""

import importlib
import time

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rankwise.core import progress, store
from rankwise.core.errors import Unsupported
from rankwise.core.kernels import kernels
from rankwise.data.prepared import model_folder
from rankwise.evaluation.scored import Scored
from rankwise.models import memory_errors
from rankwise.training import kept


def evaluate(request: dict) -> dict:
    """Evaluate the kept weights of a training run.

    Args:
        request: The cell's `evaluate` request.

    Returns:
        `rows`, one for each metric with its mean score; `examples`, the scores and details of each
        example; `metrics`: how many prompts were cut; `cost`; `device`. An evaluation of a run that
        did not end well, or that ends out of memory or unsupported, has `status` and `reason`
        instead.

    Raises:
        FileNotFoundError: The run's result, its weights, or a file of the task is not there.
        ValueError: A file is not the planned one, or not of its form.
    """
    torch.set_num_threads(request["cpu_threads"])
    file = store.Store().find(request["run"]["result"])
    if file is None:
        raise FileNotFoundError(
            f"{request['run']['result']}: not in the store; run snakemake again"
        )
    run = store.check_answers(file, request["run"]["digest"])
    if run["status"] != "ok":
        return {"status": run["status"], "reason": f"its training run: {run['reason']}"}
    try:
        with kernels(request):
            return _evaluate(request, *_loaded(request, file))
    except memory_errors.ERRORS as error:
        return memory_errors.result(error)
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}


def _loaded(request: dict, file: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The run's model on the request's device, and its tokenizer."""
    progress.doing(f"loading the weights of {request['cell']['method']}")
    model, tokenizer = kept.load(file, model_folder(request))
    return model.to(request["device"]).eval(), tokenizer


def _evaluate(request: dict, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict:
    name, entry = request["cell"]["evaluation"], request["evaluation"]
    # Loaded by name, so that an edit to one kind of evaluation reruns that kind only.
    kind = importlib.import_module(f"rankwise.evaluation.{entry['kind']}")
    progress.doing(f"evaluating {name}")
    start = time.perf_counter()
    with torch.inference_mode():
        found: Scored = kind.score(request, model, tokenizer)
    taken_s = time.perf_counter() - start
    if entry["metric"] not in found.scores:
        raise ValueError(
            f"config/evaluations.yaml: {name}.metric: got {entry['metric']}, allowed: "
            f"{', '.join(found.scores)}"
        )
    rows = [
        {
            "evaluation": name,
            "metric": metric,
            "score_fraction": sum(scores) / len(scores),
            "samples": len(scores),
        }
        for metric, scores in found.scores.items()
    ]
    return {
        "rows": rows,
        "metrics": {"truncated_rows": found.truncated},
        "examples": {"document": found.documents, **found.scores, **found.details},
        "cost": {"evaluate_time_s": taken_s},
        "device": request["device"],
    }
