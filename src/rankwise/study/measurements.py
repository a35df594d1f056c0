"""What the request of each profile holds beside model, method and shapes, and where it runs. Standard library only."""

from rankwise.core.config import ConfigError

MEASUREMENTS = ("memory", "flops", "forward", "ledger", "fits", "throughput")
PREDICT = "predict"  # a profile of every training, whether a study asks for it or not: what its job will need
TIMED = (
    "forward",
    "throughput",
)  # what they measure is the machine: in a study's own environment, and not from shapes


def settings(measurement: str, grid: dict, study: dict, dataset: dict, tokens: int) -> dict:
    """The settings of one measurement, and no others: what a request does not hold cannot rerun it."""
    if measurement == PREDICT:
        return _training(grid, study["device"], dataset)
    where = {"device": grid["device"]}
    threads = {"cpu_threads": study["cpu_threads"]}
    accumulates = {"accumulation_steps": grid["accumulation_steps"]}
    lengths = {"lengths_tokens": grid.get("lengths_tokens", [tokens])}
    return {
        "memory": {"measured": grid["measured"]},
        "flops": {**accumulates, "train_samples": dataset.get("train_samples")},
        "forward": {
            **where,
            **threads,
            **lengths,
            "batch_sizes": grid.get("batch_sizes", [grid["batch_size"]]),
        },
        "ledger": {**where, "measured": grid["measured"], "checkpointing": grid["checkpointing"]},
        "fits": {
            **where,
            **lengths,
            "memory_gib": grid["memory_gib"],
            "checkpointing": grid["checkpointing"],
        },
        "throughput": {**where, **threads, **accumulates, "checkpointing": grid["checkpointing"]},
    }[measurement]


def _training(schedule: dict, device: str, dataset: dict) -> dict:
    """The settings of a training's prediction; `updates` is None where the rows of the train split are not known."""
    rows = dataset.get("train_samples") or dataset.get("generated", {}).get("rows", {}).get("train")
    batch = schedule["batch_size"] * schedule["accumulation_steps"]
    epochs = rows and schedule["epochs"] * -(-(rows - dataset["selection_rows"]) // batch)
    kept = {
        name: schedule[name] for name in ("accumulation_steps", "checkpointing", "eval_batch_size")
    }
    return {**kept, "device": device, "updates": schedule["updates"] or epochs}


def on_gpu(measurement: str, grid: dict) -> bool:
    """Whether a profile needs a GPU: what is measured on one; predictions of what one would do need none."""
    measured = measurement in TIMED or (measurement == "ledger" and grid["measured"])
    return measured and grid["device"] == "cuda"


def lengths(grid: dict, tokens: int) -> list[int]:
    """Every sequence length (tokens) that a grid's measurements use, where the dataset's is `tokens`."""
    return [tokens, *grid.get("lengths_tokens", [])]


def check_lengths(grid: dict, model: str, positions: int, where: tuple[str, str]) -> None:
    """Whether the model has the positions that the grid's own lengths ask for.

    Raises:
        ConfigError: it has not.
    """
    for tokens in grid.get("lengths_tokens", []):
        if tokens > positions:
            raise ConfigError(
                where[0],
                f"{where[1]}.lengths_tokens",
                tokens,
                f"at most {positions}, the positions of {model}",
            )
