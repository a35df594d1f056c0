"""Our runs as the files of published system C (github.com/keeminlee/hpml-peft-benchmark): its names, fields and units.

Everything comes from a run's result, which carries its request and environment; the table of runs says which runs there are.
"""

from pathlib import Path

import pandas as pd

from rankwise.core import provenance, result
from rankwise.study import search_choice
from rankwise.study.plan import Cell

MIB = 2**20
FIELDS = (
    "run_id", "method", "model", "dataset", "rank", "epochs", "train_batch_size", "eval_batch_size", "lr", "seed",
    "eval_accuracy", "final_eval_loss", "wall_clock_s", "epoch_time_mean_s", "throughput", "step_latency_p50_s",
    "step_latency_p95_s", "peak_mem_torch_MB", "peak_mem_nvml_MB", "trainable_params", "total_params", "git_commit", "gpu_name",
)  # fmt: skip
ENVIRONMENT = (
    "hostname", "python", "torch", "transformers", "cuda_available", "cuda_version", "gpu_name", "git_commit", "seed", "argv",
    "hf_home", "hf_datasets_cache",
)  # fmt: skip
# Our columns of a run's history by the Trainer's names; others keep theirs.
LOGGED = {
    "update": "step", "train_loss_nats": "loss", "gradient_norm": "grad_norm", "selection_loss_nats": "eval_loss",
    "selection_accuracy_fraction": "eval_accuracy",
}  # fmt: skip
README = """\
## system_c: published system C (hpml-peft-benchmark), commit b740864

`system_c/{model}-{dataset}-{method}-r{rank}-seed{seed}/`: a folder for each training run, of any status. Their script reads
them: `collect_results.py --root results/exports/system_c`. MB is 2^20 bytes.

- `summary.json`, `summary.csv`: their 23 fields.
  - `rank`: null where the method has none. `epochs`: passes over train that were done. `train_batch_size`: a micro-batch.
  - `eval_accuracy` (a fraction), `final_eval_loss` (nats): on the reported split, once, of the state that was best on a
    held-out slice of train. Theirs is the best epoch on the reported split.
  - `wall_clock_s`: training and its evaluations. `epoch_time_mean_s`: training alone. `throughput`: samples by
    `wall_clock_s`.
  - `peak_mem_torch_MB`: of the run, its evaluations included, on CUDA. `total_params`: of the base model, adapters left out.
- `env.json`: their fields, and the run's `platform`, `status`, `reason` and `request_digest`. `argv` has their options'
  names.
- `metrics.csv`: one row an evaluation, by the Trainer's names, which has training and evaluation in rows of their own. Losses
  in nats; `eval_*` are on the held-out slice of train.

Always null, for a run does not record it: `step_latency_p50_s` and `step_latency_p95_s` (`tables/throughput.csv` has timed
updates), `peak_mem_nvml_MB`, `git_commit` (the request has a digest of every source instead), `gpu_name`, `cuda_version`,
`hostname`, `hf_home`, `hf_datasets_cache`. No `epoch_time.jsonl`: epochs are not timed one by one.
"""


def write(folder: Path, runs: pd.DataFrame, results: Path) -> None:
    """Write a folder for each row of `runs`, whose results lie below `results`.

    Raises:
        ValueError: a result is not the one in the table.
    """
    for row in runs.itertuples():
        cell = Cell(row.model, row.dataset, row.method, row.rank, row.seed)
        path = results / "runs" / cell.folder / "train.json"
        one = result.read(path)
        if (digest := provenance.digest(one["request"])) != row.request_digest:
            raise ValueError(
                f"{path}: it answers request {digest}, the table of runs has {row.request_digest}"
            )
        own = folder / f"{cell.model}-{cell.dataset}-{cell.method}-r{cell.rank}-seed{cell.seed}"
        _summary(own, one)
        result.write_json(own / "env.json", environment(one))
        result.write_text(own / "metrics.csv", metrics(one).to_csv(index=False))


def _summary(folder: Path, one: dict) -> None:
    found = summary(folder.name, one)
    result.write_json(folder / "summary.json", found)
    result.write_text(
        folder / "summary.csv",
        pd.DataFrame([found], columns=list(FIELDS), dtype=object).to_csv(index=False),
    )


def summary(run_id: str, one: dict) -> dict:
    """Every field; None where the result has nothing."""
    request, found, cost = one["request"], one.get("metrics", {}), one.get("cost", {})
    cell, schedule = request["cell"], request["schedule"]
    known = {
        **{name: cell[name] for name in ("method", "model", "dataset", "seed")},
        "run_id": run_id,
        "rank": cell["rank"] or None,
        "epochs": _epochs(one),
        "train_batch_size": schedule["batch_size"],
        "eval_batch_size": schedule["eval_batch_size"],
        "lr": search_choice.method(one)["learning_rate"],
        "eval_accuracy": found.get("accuracy_fraction"),
        "final_eval_loss": found.get("eval_loss_nats"),
        "trainable_params": found.get("trainable_parameters"),
        "total_params": found.get("total_parameters"),
        **(_times(one) if "train_time_s" in cost else {}),
    }
    if "peak_allocated_bytes" in cost:
        known["peak_mem_torch_MB"] = round(cost["peak_allocated_bytes"] / MIB, 2)
    return {name: known.get(name) for name in FIELDS}


def _times(one: dict) -> dict:
    """Seconds, and samples a second of all of them; what trained for no epoch has no rate."""
    cost, epochs = one["cost"], _epochs(one)
    wall_clock = cost["train_time_s"] + cost["evaluation_time_s"]
    if not epochs:
        return {"wall_clock_s": wall_clock}
    rate = one["metrics"]["samples"] / wall_clock
    return {
        "wall_clock_s": wall_clock,
        "epoch_time_mean_s": cost["train_time_s"] / epochs,
        "throughput": rate,
    }


def _epochs(one: dict) -> float | None:
    """Passes over train that were done; None where the run did not end."""
    if not one.get("history"):
        return None
    last = one["history"][-1]["epoch"]
    return int(last) if last == int(last) else last


def environment(one: dict) -> dict:
    """Where the run took place, and with which options."""
    request, place = one["request"], one["environment"]
    known = {
        **{name: place["packages"].get(name) for name in ("torch", "transformers")},
        "python": place["python"],
        "cuda_available": True if request["device"] == "cuda" else None,  # on a CPU nobody looked
        "seed": request["cell"]["seed"],
        "argv": _arguments(request, search_choice.method(one)),
    }
    ours = {
        "platform": place["platform"], "status": one["status"], "reason": one.get("reason"),
        "request_digest": provenance.digest(request),
    }  # fmt: skip
    return {**{name: known.get(name) for name in ENVIRONMENT}, **ours}


def _arguments(request: dict, method: dict) -> dict:
    schedule, cell = request["schedule"], request["cell"]
    return {
        "model": cell["model"],
        "task": cell["dataset"],
        "rank": cell["rank"] or None,
        "epochs": schedule["epochs"],
        "max_steps": schedule["updates"] or -1,
        "train_bs": schedule["batch_size"],
        "eval_bs": schedule["eval_batch_size"],
        "grad_accum": schedule["accumulation_steps"],
        "lr": method["learning_rate"],
        "weight_decay": method["optimizer"].get("weight_decay"),
        "max_length": request["dataset"]["max_length_tokens"],
        "warmup_ratio": schedule["warmup_fraction"],
        "bf16": schedule["precision"] == "bf16",
        "seed": cell["seed"],
    }


def metrics(one: dict) -> pd.DataFrame:
    """The run's history, columns sorted as theirs are."""
    rows = [{_logged(name): value for name, value in row.items()} for row in one.get("history", [])]
    columns = sorted({name for row in rows for name in row}) or ["epoch", "step"]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _logged(name: str) -> str:
    return LOGGED.get(name, name.replace("selection_", "eval_"))
