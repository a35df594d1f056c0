"""Our runs as the files of published system C (github.com/keeminlee/hpml-peft-benchmark).

Names, fields and units are theirs. Everything comes from a run's result, which contains its request
and environment; the table of runs says which runs there are.
"""

from pathlib import Path

import pandas as pd

from rankwise.analysis.tables import csv_text
from rankwise.core import provenance, result, store
from rankwise.study import search_choice
from rankwise.study.grids import split_name
from rankwise.study.plan import Cell

MIB = 2**20
SUMMARY_FIELDS = (
    "run_id",
    "method",
    "model",
    "dataset",
    "rank",
    "epochs",
    "train_batch_size",
    "eval_batch_size",
    "lr",
    "seed",
    "eval_accuracy",
    "final_eval_loss",
    "wall_clock_s",
    "epoch_time_mean_s",
    "throughput",
    "step_latency_p50_s",
    "step_latency_p95_s",
    "peak_mem_torch_MB",
    "peak_mem_nvml_MB",
    "trainable_params",
    "total_params",
    "git_commit",
    "gpu_name",
)
ENVIRONMENT_FIELDS = (
    "hostname",
    "python",
    "torch",
    "transformers",
    "cuda_available",
    "cuda_version",
    "gpu_name",
    "git_commit",
    "seed",
    "argv",
    "hf_home",
    "hf_datasets_cache",
)
# Columns of a run's history -> their names in the Trainer; other columns keep their names, apart
# from `selection_`, which the Trainer calls `eval_`.
TRAINER_NAMES = {
    "update": "step",
    "train_loss_nats": "loss",
    "gradient_norm": "grad_norm",
    "selection_loss_nats": "eval_loss",
    "selection_accuracy_fraction": "eval_accuracy",
}
README = """\
## system_c: published system C (hpml-peft-benchmark), commit b740864

`system_c/{model}-{dataset}-{method}-r{rank}-seed{seed}/`: a folder for each training run, whatever
its status. Their script reads them: `collect_results.py --root` with this folder. MB is
2^20 bytes.

- `summary.json`, `summary.csv`: their 23 fields.
  - `rank`: null if the method has none. `epochs`: completed passes over train.
    `train_batch_size`: the size of a micro-batch.
  - `eval_accuracy` (a fraction), `final_eval_loss` (nats): on the reported split, evaluated once,
    with the state that was best on a held-out slice of train. Theirs is the best epoch on the
    reported split.
  - `wall_clock_s`: training and its evaluations. `epoch_time_mean_s`: training alone.
    `throughput`: samples divided by `wall_clock_s`.
  - `peak_mem_torch_MB`: of the whole run, evaluations included, on CUDA. `total_params`: of the
    base model, without adapters.
- `env.json`: their fields, and the run's `platform`, `status`, `reason` and `request_digest`.
  `argv` has the names of their options.
- `metrics.csv`: one row for each evaluation, with the Trainer's names. The Trainer has training
  and evaluation in separate rows. Losses are in nats; `eval_*` are on the held-out slice of train.

Always null, because a run does not record it: `step_latency_p50_s` and `step_latency_p95_s`
(`tables/throughput.csv` has timed updates), `peak_mem_nvml_MB`, `git_commit` (the request has a
digest of every source instead), `gpu_name`, `cuda_version`, `hostname`, `hf_home`,
`hf_datasets_cache`. There is no `epoch_time.jsonl`: epochs are not timed one by one.
"""


def write(folder: Path, runs: pd.DataFrame, results: Path) -> None:
    """Write a folder for each row of the table `runs`, from its result below `results`.

    Raises:
        StoreError: A result is not the one in the table.
    """
    for row in runs.itertuples():
        method, variant = split_name(row.method)
        # Numbers of a table are numpy's, which JSON does not know.
        rank, seed = int(row.rank), int(row.seed)
        cell = Cell(row.model, row.dataset, method, rank, seed, variant=variant)
        path = results / "runs" / cell.folder / row.request_digest / "train.json"
        run = store.check_answers(path, row.request_digest)
        name = f"{cell.model}-{cell.dataset}-{cell.method_name}-r{cell.rank}-seed{cell.seed}"
        _write_run(folder / name, cell, run)


def _write_run(folder: Path, cell: Cell, run: dict) -> None:
    fields = _summary(folder.name, cell, run)
    result.write_json(folder / "summary.json", fields)
    # With dtype object, integers stay integers beside missing values.
    row = pd.DataFrame([fields], columns=list(SUMMARY_FIELDS), dtype=object)
    result.write_text(folder / "summary.csv", csv_text(row))
    result.write_json(folder / "env.json", _environment(run))
    result.write_text(folder / "metrics.csv", csv_text(_metrics(run)))


def _summary(run_id: str, cell: Cell, run: dict) -> dict:
    """Every field of the summary; None where the result has no value."""
    metrics, cost = run.get("metrics", {}), run.get("cost", {})
    schedule = run["request"]["schedule"]
    known = {
        "run_id": run_id,
        "method": cell.method_name,
        "model": cell.model,
        "dataset": cell.dataset,
        "seed": cell.seed,
        "rank": cell.rank or None,
        "epochs": _epochs(run),
        "train_batch_size": schedule["batch_size"],
        "eval_batch_size": schedule["eval_batch_size"],
        "lr": search_choice.method(run)["learning_rate"],
        "eval_accuracy": metrics.get("accuracy_fraction"),
        "final_eval_loss": metrics.get("eval_loss_nats"),
        "trainable_params": metrics.get("trainable_parameters"),
        "total_params": metrics.get("total_parameters"),
    }
    if "train_time_s" in cost:
        known |= _times(run)
    if "peak_allocated_bytes" in cost:
        known["peak_mem_torch_MB"] = round(cost["peak_allocated_bytes"] / MIB, 2)
    return {name: known.get(name) for name in SUMMARY_FIELDS}


def _times(run: dict) -> dict:
    """Seconds, and samples per second of all of them; a run without training has no rate."""
    cost, epochs = run["cost"], _epochs(run)
    wall_clock = cost["train_time_s"] + cost["evaluation_time_s"]
    if not epochs:
        return {"wall_clock_s": wall_clock}
    return {
        "wall_clock_s": wall_clock,
        "epoch_time_mean_s": cost["train_time_s"] / epochs,
        "throughput": run["metrics"]["samples"] / wall_clock,
    }


def _epochs(run: dict) -> float | None:
    """Completed passes over train; None if the run did not end."""
    if not run.get("history"):
        return None
    last = run["history"][-1]["epoch"]
    return int(last) if last == int(last) else last


def _environment(run: dict) -> dict:
    """Where the run took place, with which options, and what became of it."""
    request, environment = run["request"], run["environment"]
    known = {
        "python": environment["python"],
        "torch": environment["packages"].get("torch"),
        "transformers": environment["packages"].get("transformers"),
        # A run on a CPU does not look for CUDA, so it cannot say that there was none.
        "cuda_available": True if request["device"] == "cuda" else None,
        "seed": request["cell"]["seed"],
        "argv": _arguments(request, search_choice.method(run)),
    }
    theirs = {name: known.get(name) for name in ENVIRONMENT_FIELDS}
    return {
        **theirs,
        "platform": environment["platform"],
        "status": run["status"],
        "reason": run.get("reason"),
        "request_digest": provenance.digest(request),
    }


def _arguments(request: dict, method: dict) -> dict:
    """The settings of the run under the names of system C's options."""
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


def _metrics(run: dict) -> pd.DataFrame:
    """The run's history; the columns are sorted, as theirs are."""
    rows, columns = [], set()
    for evaluation in run.get("history", []):
        row = {_trainer_name(name): value for name, value in evaluation.items()}
        rows.append(row)
        columns.update(row)
    return pd.DataFrame(rows, columns=sorted(columns) or ["epoch", "step"], dtype=object)


def _trainer_name(name: str) -> str:
    return TRAINER_NAMES.get(name, name.replace("selection_", "eval_"))
