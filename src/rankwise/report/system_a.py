"""Our tables as the CSV files of published system A (github.com/ASB1127/HPMLProj): its names, columns and units.

Its scripts run inside of a folder `graph` of one method and one dataset; ours has one for every model as well. Its README below
says what each file holds.
"""

from pathlib import Path

import pandas as pd

from rankwise.core import result

MIB = 2**20
BASELINE = "full"  # torch's AdamW, which the system calls Adam
# What is read of each table; a study that lacks a table, or a table that lacks a column, has nothing there.
CELL = ("model", "dataset", "method", "rank")
COLUMNS = {
    "runs": ("seed", "peak_allocated_bytes"),
    "history": ("seed", "epoch", "train_loss_nats", "selection_loss_nats"),
    "memory": ("optimizer_state_bytes", "weights_bytes", "gradients_bytes"),
    "flops": ("batch_size", "profiler_step_flops"),
    "forward": ("batch_size", "sequence_length_tokens", "merged", "forward_flops"),
    "ledger": (
        "batch_size", "device", "leaf_outputs_bytes", "evaluation_peak_bytes", "measured_evaluation_peak_bytes",
        "measured_peak_bytes", "measured_reserved_bytes",
    ),
    "state": ("tensor", "state_bytes"),
}  # fmt: skip
Tables = dict[str, pd.DataFrame]
README = """\
## system_a: published system A (HPMLProj), commit ec7ccdb

`system_a/{model}/{method}/{dataset}/` stands for its folder `graph`: copy a plotting script there and run it. Ranks are ours
(0: the method has none). MB is 2^20 bytes. `r{rank}/` holds the run of the lowest seed, `r{rank}/seed{seed}/` the others. Their
plots across ranks want all four files of a rank, so runs and a ledger on CUDA; those of optimizer memory and of the breakdown
want profiles alone.

- `r{rank}/epoch_loss.csv`: nats. `epoch` is the true one: theirs is one too high for `eval_loss`, for their hook runs before
  the evaluation; our row e is their row e + 1. `train_loss` is the mean since the last evaluation, theirs of the last 50
  updates. `eval_loss` is on a held-out slice of train, theirs on the reported split. Evaluations within an epoch have
  fractions of it.
- `r{rank}/epoch_peak_memory.csv`: bytes, only of runs on CUDA. One row: the whole run's peak allocated, evaluations included.
- `r{rank}/flops_profiler_stats.csv`: FLOPs as torch's profiler counts them, without attention and decompositions; all of them
  are in `tables/flops.csv`. `step_flops`: a micro-batch with an optimizer step. `epoch_flops`: that times the micro-batches
  of an epoch, as theirs; not there where the size of train is unknown.
- `r{rank}/total_program_memory.csv`: bytes that CUDA's allocator reserved at its peak in the two steps of the memory ledger;
  theirs in a whole run. Only where measured on CUDA.
- `r{rank}/forward_pass/forward_flops.csv`: products, attention's included, of the smallest un-merged batch that was profiled;
  its size is in two more rows. Theirs is of one sentence of 11 tokens, without attention.
- `r{rank}/forward_pass/peak_forward_memory.csv`: bytes at the peak of a forward pass without gradients on the ledger's batch,
  the optimizer's state still there: measured where the ledger was, else predicted from shapes (which one more row always is).
  Theirs is of one sentence, on CUDA.
- `r{rank}_opt/optimizer_memory.csv`, `adam_opt/optimizer_memory.csv`, all in `optimizer_memory_comparison.csv`: bytes of
  every tensor in the optimizer's state after a step, as theirs. Adam is our method `full`, torch's AdamW with its step
  counts.
- `memory_breakdown_r{rank}.csv`, `memory_breakdown.csv` (Adam): bytes by component, from shapes. `optimizer_state_*` has our
  tensors' names: `basis` is their `proj`, `exp_avg` their `exp_avg_low` and `exp_avg` together. `activations_total` sums the
  outputs of all leaf modules, as theirs; that is neither what backward keeps nor a peak, which are in `tables/ledger.csv`.
  Without a ledger it is not there, nor is `total_components`. `cuda_*` only where measured: peaks of the ledger's two steps.

Not here: `epoch_train_accuracy.csv`, which is not measured; TopR's masked and effective FLOPs, which multiply by the share of
gradients that is kept, although masking saves no product.
"""


def write(folder: Path, frames: Tables, train_samples: dict[str, int]) -> None:
    """Write every file that the tables have the numbers for; `train_samples` is the size of a dataset's train split."""
    whole = {name: frames.get(name, pd.DataFrame()) for name in COLUMNS}
    whole = {
        name: frame.reindex(columns=dict.fromkeys((*CELL, *COLUMNS[name], *frame)))
        for name, frame in whole.items()
    }
    keys = dict.fromkeys(
        key
        for frame in whole.values()
        for key in zip(*(frame[name] for name in CELL[:3]), strict=True)
    )
    for model, dataset, method in keys:
        own, full = _of(whole, model, dataset, method), _of(whole, model, dataset, BASELINE)
        graph = folder / model / method / dataset
        epoch_loss(graph, own)
        epoch_peak_memory(graph, own)
        flops_profiler_stats(graph, own["flops"], train_samples.get(dataset))
        total_program_memory(graph, own["ledger"])
        forward_flops(graph, own["forward"])
        peak_forward_memory(graph, own["ledger"])
        optimizer_memory(graph, own["memory"], full["memory"])
        memory_breakdowns(graph, own, full)


# Training -----------------------------------------------------------------------------------------------------------------


def epoch_loss(graph: Path, own: Tables) -> None:
    """Losses by epoch, the evaluation's beside the epoch that it followed."""
    trained = own["history"][own["history"]["epoch"] > 0]
    for (rank, seed), rows in trained.groupby(["rank", "seed"]):
        losses = zip(
            rows["epoch"], rows["train_loss_nats"], rows["selection_loss_nats"], strict=True
        )
        kept = [
            {"epoch": _whole(epoch), "train_loss": train, "eval_loss": held_out}
            for epoch, train, held_out in losses
        ]
        _csv(_run(graph, own["runs"], rank, seed) / "epoch_loss.csv", kept)


def epoch_peak_memory(graph: Path, own: Tables) -> None:
    """The peak of a whole run, at its last epoch: what training on CUDA measures."""
    last = own["history"].groupby(["rank", "seed"])["epoch"].max()
    for row in own["runs"].dropna(subset="peak_allocated_bytes").itertuples():
        peak = {
            "epoch": _whole(last.get((row.rank, row.seed), 0.0)),
            "peak_memory_bytes": int(row.peak_allocated_bytes),
        }
        _csv(_run(graph, own["runs"], row.rank, row.seed) / "epoch_peak_memory.csv", [peak])


def _run(graph: Path, runs: pd.DataFrame, rank: int, seed: int) -> Path:
    """The lowest seed stands where the system's only one does, the others below it."""
    first = runs.loc[runs["rank"] == rank, "seed"].min()
    return graph / f"r{rank}" if seed == first else graph / f"r{rank}" / f"seed{seed}"


# FLOPs and peaks ----------------------------------------------------------------------------------------------------------


def flops_profiler_stats(graph: Path, flops: pd.DataFrame, train_samples: int | None) -> None:
    """FLOPs of a micro-batch with a step, as the system counts them, and that times the micro-batches of an epoch."""
    for row in flops.dropna(subset="profiler_step_flops").itertuples():
        found = {"step_flops": int(row.profiler_step_flops)}
        if train_samples:
            found["epoch_flops"] = found["step_flops"] * -(-train_samples // int(row.batch_size))
        _metrics(graph / f"r{row.rank}" / "flops_profiler_stats.csv", "value", found)


def total_program_memory(graph: Path, ledger: pd.DataFrame) -> None:
    """The most that CUDA's allocator reserved."""
    for row in ledger.dropna(subset="measured_reserved_bytes").itertuples():
        path = graph / f"r{row.rank}" / "total_program_memory.csv"
        _metrics(
            path, "value_bytes", {"program_total_peak_memory": int(row.measured_reserved_bytes)}
        )


def forward_flops(graph: Path, forward: pd.DataFrame) -> None:
    """FLOPs of the smallest un-merged forward pass, with its size."""
    columns = ["forward_flops", "batch_size", "sequence_length_tokens"]
    found = forward[forward["merged"] == False].dropna(subset=columns).sort_values(columns[1:])  # noqa: E712 - of a column
    for rank, rows in found.groupby("rank"):
        sizes = {name: int(rows[name].iloc[0]) for name in columns}
        _metrics(graph / f"r{rank}" / "forward_pass" / "forward_flops.csv", "value", sizes)


def peak_forward_memory(graph: Path, ledger: pd.DataFrame) -> None:
    """The peak of an evaluation step: measured, or predicted where it was not."""
    for row in ledger.dropna(subset="evaluation_peak_bytes").itertuples():
        predicted, measured = row.evaluation_peak_bytes, row.measured_evaluation_peak_bytes
        peak = predicted if pd.isna(measured) else measured
        found = {"peak_memory": int(peak), "predicted_peak_memory": int(predicted)}
        _metrics(
            graph / f"r{row.rank}" / "forward_pass" / "peak_forward_memory.csv",
            "value_bytes",
            found,
        )


# Optimizer memory and its companions --------------------------------------------------------------------------------------


def optimizer_memory(graph: Path, memory: pd.DataFrame, full: pd.DataFrame) -> None:
    """Bytes of optimizer state and the saving against full AdamW: one file a rank, and all of them in one table."""
    base = full.dropna(subset="optimizer_state_bytes")["optimizer_state_bytes"]
    adam = [_saving("Adam", None, base.iloc[0], base)] if len(base) else []
    rows = (
        memory[memory["method"] != BASELINE]
        .dropna(subset="optimizer_state_bytes")
        .sort_values("rank")
    )
    others = [
        _saving(row.method, row.rank, row.optimizer_state_bytes, base) for row in rows.itertuples()
    ]
    for row in adam:
        _csv(
            graph / "adam_opt" / "optimizer_memory.csv",
            [{name: value for name, value in row.items() if name != "rank"}],
        )
    for row in others:
        _csv(graph / f"r{row['rank']}_opt" / "optimizer_memory.csv", [row])
    if adam or others:
        _csv(graph / "optimizer_memory_comparison.csv", [*adam, *others])


def _saving(name: str, rank: int | None, size: float, base: pd.Series) -> dict:
    saved, percent = None, None
    if len(base):
        adam = base.iloc[0] / MIB
        saved = adam - size / MIB
        percent = saved / adam * 100
    if rank is None:
        saved = percent = 0
    numbers = {"memory_mb": size / MIB, "memory_bytes": int(size)}
    return {"optimizer": name, "rank": rank, **numbers, "savings_mb": saved, "savings_pct": percent}


def memory_breakdowns(graph: Path, own: Tables, full: Tables) -> None:
    """One file a rank, and full AdamW's, to which the system's plots compare them."""
    for frames in (full, own):
        for row in frames["memory"].dropna(subset="optimizer_state_bytes").itertuples():
            name = (
                "memory_breakdown.csv"
                if row.method == BASELINE
                else f"memory_breakdown_r{row.rank}.csv"
            )
            ledger, state = (
                frames[table][frames[table]["rank"] == row.rank] for table in ("ledger", "state")
            )
            _csv(graph / name, breakdown(row, ledger.iloc[0] if len(ledger) else None, state))


def breakdown(memory: tuple, ledger: pd.Series | None, state: pd.DataFrame) -> list[dict]:
    """Rows of components; what no ledger has measured or predicted is left out, and the total with it."""
    parts = {"parameters": memory.weights_bytes, "optimizer_states": memory.optimizer_state_bytes}
    if ledger is not None and pd.notna(ledger["leaf_outputs_bytes"]):
        parts["activations"] = ledger["leaf_outputs_bytes"]
    parts["gradients"] = memory.gradients_bytes
    rows = []
    for name, size in parts.items():
        rows.append(_component(f"{name}_total", size))
        if name == "optimizer_states":
            rows += [
                _component(f"optimizer_state_{tensor}", held)
                for tensor, held in _states(size, state).items()
            ]
    rows += _cuda(ledger)
    if "activations" in parts:
        rows.append(
            _component(
                "total_components",
                sum(parts.values()),
                "Parameters + optimizer + activations + gradients",
            )
        )
    return [*_sizes(ledger), *rows]


def _states(total: float, state: pd.DataFrame) -> dict[str, int]:
    """Bytes by tensor. The ledger has the model's device only; what is beyond it are torch's step counts, on the host."""
    found = state.groupby("tensor", sort=False)["state_bytes"].sum().to_dict()
    rest = total - sum(found.values())
    return {"step": rest, **found} if found and rest else found


def _cuda(ledger: pd.Series | None) -> list[dict]:
    if ledger is None or ledger["device"] != "cuda":
        return []
    named = {
        "cuda_peak_allocated_mb": "measured_peak_bytes",
        "cuda_peak_reserved_mb": "measured_reserved_bytes",
    }
    return [
        _component(name, ledger[column])
        for name, column in named.items()
        if pd.notna(ledger[column])
    ]


def _sizes(ledger: pd.Series | None) -> list[dict]:
    if ledger is None or pd.isna(ledger["batch_size"]):
        return []
    size = int(ledger["batch_size"])
    return [
        {
            "component": "batch_size",
            "memory_mb": size,
            "memory_bytes": size,
            "details": "Samples of a micro-batch",
        }
    ]


def _component(name: str, size: float, details: str = "") -> dict:
    return {
        "component": name,
        "memory_mb": size / MIB,
        "memory_bytes": int(size),
        "details": details,
    }


# Files --------------------------------------------------------------------------------------------------------------------


def _of(frames: Tables, model: str, dataset: str, method: str) -> Tables:
    return {
        name: frame[(frame[list(CELL[:3])] == [model, dataset, method]).all(axis="columns")]
        for name, frame in frames.items()
    }


def _whole(epoch: float) -> float:
    return int(epoch) if epoch == int(epoch) else epoch


def _metrics(path: Path, column: str, found: dict[str, int]) -> None:
    _csv(path, [{"metric": name, column: value} for name, value in found.items()])


def _csv(path: Path, rows: list[dict]) -> None:
    result.write_text(
        path, pd.DataFrame(rows, dtype=object).to_csv(index=False)
    )  # object: whole numbers stay whole beside others
