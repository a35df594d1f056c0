"""Our tables as the CSV files of published system A (github.com/ASB1127/HPMLProj).

Names, columns and units are theirs. Their scripts run inside a folder `graph`, which belongs to one
method and one dataset; ours has a folder for each model as well. The README below says what each
file holds.
"""

from pathlib import Path

import pandas as pd

from rankwise.analysis.tables import csv_text
from rankwise.core import result
from rankwise.core.keys import CURVE

MIB = 2**20
BASELINE = "full"  # full fine-tuning with torch's AdamW, which system A calls Adam
# The columns that are read of each table. A study that lacks a table, and a table that lacks a
# column, have nothing there.
COLUMNS = {
    "runs": ("seed", "peak_allocated_bytes"),
    "history": ("seed", "epoch", "train_loss_nats", "selection_loss_nats"),
    "memory": ("optimizer_state_bytes", "weights_bytes", "gradients_bytes"),
    "flops": ("batch_size", "profiler_step_flops"),
    "forward": ("batch_size", "sequence_length_tokens", "merged", "forward_flops"),
    "ledger": (
        "batch_size",
        "device",
        "leaf_outputs_bytes",
        "evaluation_peak_bytes",
        "measured_evaluation_peak_bytes",
        "measured_peak_bytes",
        "measured_reserved_bytes",
    ),
    "state": ("tensor", "state_bytes"),
}
Tables = dict[str, pd.DataFrame]
README = """\
## system_a: published system A (HPMLProj), commit ec7ccdb

`system_a/{model}/{method}/{dataset}/` corresponds to its folder `graph`: copy a plotting script
there and run it. Ranks are ours (0: the method has none). MB is 2^20 bytes. `r{rank}/` holds the
run with the lowest seed, `r{rank}/seed{seed}/` the other runs. Their plots across ranks need all
four files of a rank, and so runs and a ledger on CUDA. Their plots of optimizer memory and of the
breakdown need profiles alone.

- `r{rank}/epoch_loss.csv`: nats. `epoch` is the epoch that the row is about. In their file it is
  one too high for `eval_loss`, because their hook runs before the evaluation: our row e is their
  row e + 1. `train_loss` is the mean since the last evaluation; theirs is the mean of the last 50
  updates. `eval_loss` is on a held-out slice of train; theirs is on the reported split.
  Evaluations within an epoch have a fractional `epoch`.
- `r{rank}/epoch_peak_memory.csv`: bytes, for runs on CUDA only. It has one row: the peak that was
  allocated in the whole run, evaluations included.
- `r{rank}/flops_profiler_stats.csv`: FLOPs as torch's profiler counts them, without attention and
  decompositions; `tables/flops.csv` has all FLOPs. `step_flops`: a micro-batch with an optimizer
  step. `epoch_flops`: `step_flops` times the micro-batches of an epoch, as in their file; missing
  if the size of train is unknown.
- `r{rank}/total_program_memory.csv`: bytes that CUDA's allocator reserved at its peak in the two
  steps of the memory ledger; theirs are of a whole run. Only if it was measured on CUDA.
- `r{rank}/forward_pass/forward_flops.csv`: matrix products, attention included, of the smallest
  un-merged batch that was profiled; two more rows have its size. Theirs are of one sentence of 11
  tokens, without attention.
- `r{rank}/forward_pass/peak_forward_memory.csv`: bytes at the peak of a forward pass without
  gradients on the ledger's batch, with the optimizer's state in memory. They are measured if the
  ledger was measured, and otherwise predicted from shapes; one more row always has the prediction.
  Theirs are of one sentence, on CUDA.
- `r{rank}_opt/optimizer_memory.csv`, `adam_opt/optimizer_memory.csv`, and all of them in
  `optimizer_memory_comparison.csv`: bytes of every tensor in the optimizer's state after a step, as
  in their files. Adam is our method `full`: torch's AdamW with its step counts.
- `memory_breakdown_r{rank}.csv`, `memory_breakdown.csv` (Adam): bytes by component, from shapes.
  `optimizer_state_*` has the names of our tensors: `basis` is their `proj`, `exp_avg` is their
  `exp_avg_low` and `exp_avg` together. `activations_total` is the sum of the outputs of all leaf
  modules, as in their file; it is neither what backward keeps nor a peak, which are in
  `tables/ledger.csv`. Without a ledger it is missing, and so is `total_components`. `cuda_*` are
  peaks of the ledger's two steps, only if they were measured.

Not here: `epoch_train_accuracy.csv`, which is not measured; and TopR's masked and effective FLOPs,
which multiply by the share of gradients that is kept, although masking saves no product.
"""


def write(folder: Path, frames: Tables, train_samples: dict[str, int]) -> None:
    """Write every file for which the tables have the numbers.

    Args:
        folder: the folder to write to.
        frames: our tables by name.
        train_samples: the size of each dataset's train split, as far as it is known.
    """
    complete = {name: _with_columns(frames.get(name), name) for name in COLUMNS}
    keys: dict[tuple[str, str, str], None] = {}  # a dict, for the order of first appearance
    for frame in complete.values():
        keys |= dict.fromkeys(zip(frame["model"], frame["dataset"], frame["method"], strict=True))
    for model, dataset, method in keys:
        own = _of(complete, model, dataset, method)
        baseline = _of(complete, model, dataset, BASELINE)
        graph = folder / model / method / dataset
        _epoch_loss(graph, own)
        _epoch_peak_memory(graph, own)
        _flops_profiler_stats(graph, own["flops"], train_samples.get(dataset))
        _total_program_memory(graph, own["ledger"])
        _forward_flops(graph, own["forward"])
        _peak_forward_memory(graph, own["ledger"])
        _optimizer_memory(graph, own["memory"], baseline["memory"])
        _memory_breakdowns(graph, own, baseline)


def _with_columns(frame: pd.DataFrame | None, name: str) -> pd.DataFrame:
    """The table with every column that is read of it; a column that it lacks is empty."""
    frame = pd.DataFrame() if frame is None else frame
    return frame.reindex(columns=list(dict.fromkeys((*CURVE, *COLUMNS[name], *frame))))


def _of(tables: Tables, model: str, dataset: str, method: str) -> Tables:
    """The rows of one method, by table."""
    own = {}
    for name, frame in tables.items():
        is_own = frame["model"] == model
        is_own &= (frame["dataset"] == dataset) & (frame["method"] == method)
        own[name] = frame[is_own]
    return own


# Training --------------------------------------------------------------------------------------


def _epoch_loss(graph: Path, own: Tables) -> None:
    """Losses by epoch; the loss of an evaluation is in the row of the epoch before it."""
    after_training = own["history"][own["history"]["epoch"] > 0]
    for (rank, seed), evaluations in after_training.groupby(["rank", "seed"]):
        rows = []
        for evaluation in evaluations.itertuples():
            row = {
                "epoch": _whole(evaluation.epoch),
                "train_loss": evaluation.train_loss_nats,
                "eval_loss": evaluation.selection_loss_nats,
            }
            rows.append(row)
        _write_csv(_run_folder(graph, own["runs"], rank, seed) / "epoch_loss.csv", rows)


def _epoch_peak_memory(graph: Path, own: Tables) -> None:
    """The peak of a whole run, in the row of its last epoch; runs on CUDA record it."""
    last_epoch = own["history"].groupby(["rank", "seed"])["epoch"].max()
    for run in own["runs"].dropna(subset="peak_allocated_bytes").itertuples():
        row = {
            "epoch": _whole(last_epoch.get((run.rank, run.seed), 0.0)),
            "peak_memory_bytes": int(run.peak_allocated_bytes),
        }
        folder = _run_folder(graph, own["runs"], run.rank, run.seed)
        _write_csv(folder / "epoch_peak_memory.csv", [row])


def _run_folder(graph: Path, runs: pd.DataFrame, rank: int, seed: int) -> Path:
    """The folder of a run: the lowest seed takes the place of system A's only run."""
    folder = graph / f"r{rank}"
    lowest_seed = runs.loc[runs["rank"] == rank, "seed"].min()
    return folder if seed == lowest_seed else folder / f"seed{seed}"


# FLOPs and peaks -------------------------------------------------------------------------------


def _flops_profiler_stats(graph: Path, flops: pd.DataFrame, train_samples: int | None) -> None:
    """FLOPs of a micro-batch with a step as system A counts them, and of an epoch of those."""
    for row in flops.dropna(subset="profiler_step_flops").itertuples():
        step_flops = int(row.profiler_step_flops)
        values = {"step_flops": step_flops}
        if train_samples:
            micro_batches = -(-train_samples // int(row.batch_size))
            values["epoch_flops"] = step_flops * micro_batches
        _write_metrics(graph / f"r{row.rank}" / "flops_profiler_stats.csv", "value", values)


def _total_program_memory(graph: Path, ledger: pd.DataFrame) -> None:
    """The most bytes that CUDA's allocator reserved."""
    for row in ledger.dropna(subset="measured_reserved_bytes").itertuples():
        path = graph / f"r{row.rank}" / "total_program_memory.csv"
        values = {"program_total_peak_memory": int(row.measured_reserved_bytes)}
        _write_metrics(path, "value_bytes", values)


def _forward_flops(graph: Path, forward: pd.DataFrame) -> None:
    """FLOPs of the smallest un-merged forward pass, with its size."""
    columns = ["forward_flops", "batch_size", "sequence_length_tokens"]
    un_merged = forward[forward["merged"].eq(False)].dropna(subset=columns)
    by_size = un_merged.sort_values(["batch_size", "sequence_length_tokens"])
    for rank, rows in by_size.groupby("rank"):
        values = {name: int(rows[name].iloc[0]) for name in columns}
        _write_metrics(graph / f"r{rank}" / "forward_pass" / "forward_flops.csv", "value", values)


def _peak_forward_memory(graph: Path, ledger: pd.DataFrame) -> None:
    """The peak of an evaluation step: measured, or predicted if it was not measured."""
    for row in ledger.dropna(subset="evaluation_peak_bytes").itertuples():
        predicted, measured = row.evaluation_peak_bytes, row.measured_evaluation_peak_bytes
        values = {
            "peak_memory": int(predicted if pd.isna(measured) else measured),
            "predicted_peak_memory": int(predicted),
        }
        path = graph / f"r{row.rank}" / "forward_pass" / "peak_forward_memory.csv"
        _write_metrics(path, "value_bytes", values)


# Optimizer memory ------------------------------------------------------------------------------


def _optimizer_memory(graph: Path, memory: pd.DataFrame, baseline: pd.DataFrame) -> None:
    """Bytes of optimizer state and the saving against Adam: a file for each rank, and one table."""
    adam_sizes = baseline["optimizer_state_bytes"].dropna()
    adam_bytes = adam_sizes.iloc[0] if len(adam_sizes) else None
    comparison = []
    if adam_bytes is not None:
        adam = _saving("Adam", None, adam_bytes, adam_bytes)
        comparison.append(adam)
        without_rank = {name: value for name, value in adam.items() if name != "rank"}
        _write_csv(graph / "adam_opt" / "optimizer_memory.csv", [without_rank])
    others = memory[memory["method"] != BASELINE].dropna(subset="optimizer_state_bytes")
    for row in others.sort_values("rank").itertuples():
        saving = _saving(row.method, row.rank, row.optimizer_state_bytes, adam_bytes)
        comparison.append(saving)
        _write_csv(graph / f"r{row.rank}_opt" / "optimizer_memory.csv", [saving])
    if comparison:
        _write_csv(graph / "optimizer_memory_comparison.csv", comparison)


def _saving(name: str, rank: int | None, size: float, adam_bytes: float | None) -> dict:
    """A row of a file of optimizer memory. The row of Adam itself has rank None."""
    saved_mb, saved_percent = None, None
    if rank is None:
        saved_mb, saved_percent = 0, 0
    elif adam_bytes is not None:
        # Divided before it is subtracted, as system A does: the digits of the floats are the same.
        adam_mb = adam_bytes / MIB
        saved_mb = adam_mb - size / MIB
        saved_percent = saved_mb / adam_mb * 100
    return {
        "optimizer": name,
        "rank": rank,
        "memory_mb": size / MIB,
        "memory_bytes": int(size),
        "savings_mb": saved_mb,
        "savings_pct": saved_percent,
    }


# Memory breakdowns -----------------------------------------------------------------------------


def _memory_breakdowns(graph: Path, own: Tables, baseline: Tables) -> None:
    """One file for each rank, and the file of Adam, to which system A's plots compare them."""
    for frames in (baseline, own):
        for memory in frames["memory"].dropna(subset="optimizer_state_bytes").itertuples():
            is_baseline = memory.method == BASELINE
            name = f"memory_breakdown{'' if is_baseline else f'_r{memory.rank}'}.csv"
            ledgers = frames["ledger"][frames["ledger"]["rank"] == memory.rank]
            state = frames["state"][frames["state"]["rank"] == memory.rank]
            ledger = ledgers.iloc[0] if len(ledgers) else None
            _write_csv(graph / name, _breakdown(memory, ledger, state))


def _breakdown(memory: tuple, ledger: pd.Series | None, state: pd.DataFrame) -> list[dict]:
    """The rows of a breakdown.

    Without a ledger there are no activations, and so no total.
    """
    rows = [*_size_rows(ledger), _component("parameters_total", memory.weights_bytes)]
    rows.append(_component("optimizer_states_total", memory.optimizer_state_bytes))
    for tensor, size in _state_bytes(memory.optimizer_state_bytes, state).items():
        rows.append(_component(f"optimizer_state_{tensor}", size))
    activations = float("nan") if ledger is None else ledger["leaf_outputs_bytes"]
    if pd.notna(activations):
        rows.append(_component("activations_total", activations))
    rows.append(_component("gradients_total", memory.gradients_bytes))
    rows += _cuda_rows(ledger)
    if pd.notna(activations):
        total = memory.weights_bytes + memory.optimizer_state_bytes
        total += activations + memory.gradients_bytes
        details = "Parameters + optimizer + activations + gradients"
        rows.append(_component("total_components", total, details))
    return rows


def _state_bytes(total: float, state: pd.DataFrame) -> dict[str, int]:
    """Bytes of optimizer state by tensor.

    The ledger counts the model's device alone. The rest of the total are torch's step counts, which
    are on the host.
    """
    by_tensor = state.groupby("tensor", sort=False)["state_bytes"].sum().to_dict()
    rest = total - sum(by_tensor.values())
    return {"step": rest, **by_tensor} if by_tensor and rest else by_tensor


def _cuda_rows(ledger: pd.Series | None) -> list[dict]:
    if ledger is None or ledger["device"] != "cuda":
        return []
    rows = []
    for name, column in (
        ("cuda_peak_allocated_mb", "measured_peak_bytes"),
        ("cuda_peak_reserved_mb", "measured_reserved_bytes"),
    ):
        if pd.notna(ledger[column]):
            rows.append(_component(name, ledger[column]))
    return rows


def _size_rows(ledger: pd.Series | None) -> list[dict]:
    """The batch size, which system A writes among the components, as if it were bytes."""
    if ledger is None or pd.isna(ledger["batch_size"]):
        return []
    size = int(ledger["batch_size"])
    row = {"component": "batch_size", "memory_mb": size, "memory_bytes": size}
    return [{**row, "details": "Samples of a micro-batch"}]


def _component(name: str, size: float, details: str = "") -> dict:
    return {
        "component": name,
        "memory_mb": size / MIB,
        "memory_bytes": int(size),
        "details": details,
    }


# Files -----------------------------------------------------------------------------------------


def _whole(epoch: float) -> float:
    """A whole epoch as an integer, as system A writes it."""
    return int(epoch) if epoch == int(epoch) else epoch


def _write_metrics(path: Path, column: str, values: dict[str, int]) -> None:
    _write_csv(path, [{"metric": name, column: value} for name, value in values.items()])


def _write_csv(path: Path, rows: list[dict]) -> None:
    # With dtype object, integers stay integers beside floats and missing values in a column.
    result.write_text(path, csv_text(pd.DataFrame(rows, dtype=object)))
