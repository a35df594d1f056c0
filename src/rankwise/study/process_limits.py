"""Which trainings several processes can share: checked while a study is planned.

Standard library only.
"""

from rankwise.core import plugins
from rankwise.core.config import ConfigError
from rankwise.study.options import constant

DDP, FSDP2 = "ddp", "fsdp2"
TRAINED = (DDP, FSDP2)  # other shardings are predicted only
DENSE = ("fp32", "bf16")


def check_processes(
    name: str, method: dict, schedule: dict, where: tuple[str, str], keep: str = "none"
) -> None:
    """Check that a schedule's processes can train a method together.

    Args:
        name: The entry's name.
        method: The resolved entry.
        schedule: With `processes`, `sharding` and `batch_size`.
        where: File and key of the schedule, for messages.
        keep: The weights that a run keeps.

    Raises:
        ConfigError: The processes do not divide the batch, training has no such sharding, or the
            method cannot be sharded.
    """
    file, key = where
    if schedule["sharding"] not in TRAINED:
        allowed = (
            "ddp or fsdp2, with which training runs; FSDP1 and ZeRO are predicted: write them in a "
            "grid of `profile` with measurements: [ledger] and measured: false"
        )
        raise ConfigError(file, f"{key}.sharding", schedule["sharding"], allowed)
    _check_batch(schedule, where)
    if schedule["sharding"] == DDP:
        return
    reason = _not_sharded(method)
    if not reason and method["weights"] not in DENSE:
        reason = f"weights {method['weights']} are stored in blocks that cannot be split"
    if not reason and keep != "none":
        reason = f"keep: {keep} needs whole weights; with keep: none, {FSDP2} is possible"
    if reason:
        allowed = f"{DDP} with {name}, because {reason}"
        raise ConfigError(file, f"{key}.sharding", schedule["sharding"], allowed)


def check_profiled(name: str, method: dict, grid: dict, where: tuple[str, str]) -> None:
    """Check that a profile with several processes can be predicted, and is a prediction.

    A prediction runs in one process. Weights in 4 and 8 bits can be predicted in shares, which
    other programs train.

    Args:
        name: The entry's name.
        method: The resolved entry.
        grid: A grid of profiles.
        where: Its file and key, for messages.

    Raises:
        ConfigError: It measures something, the processes do not divide the batch, or the method
            cannot be sharded.
    """
    file, key = where
    if grid["processes"] > 1 and (grid["measurements"] != ["ledger"] or grid["measured"]):
        allowed = (
            "1, or a grid with measurements: [ledger] and measured: false, which predicts what one "
            "of several processes holds"
        )
        raise ConfigError(file, f"{key}.processes", grid["processes"], allowed)
    _check_batch(grid, where)
    reason = None if grid["sharding"] == DDP else _not_sharded(method)
    if reason:
        allowed = f"{DDP} with {name}, because {reason}"
        raise ConfigError(file, f"{key}.sharding", grid["sharding"], allowed)


def _check_batch(schedule: dict, where: tuple[str, str]) -> None:
    """Check that the processes divide the batch, and that several share what is to be shared."""
    file, key = where
    processes, batch_size = schedule["processes"], schedule["batch_size"]
    if batch_size % processes:
        below = batch_size - batch_size % processes
        nearest = [size for size in (below, below + processes) if size]
        allowed = (
            f"a number that batch_size {batch_size} is a multiple of; or make batch_size "
            f"{' or '.join(map(str, nearest))}, since it is that of all processes together"
        )
        raise ConfigError(file, f"{key}.processes", processes, allowed)
    if schedule["sharding"] != DDP and processes == 1:
        allowed = f"{DDP} with processes: 1, where there is nothing to share"
        raise ConfigError(file, f"{key}.sharding", schedule["sharding"], allowed)


def _not_sharded(method: dict) -> str | None:
    """Why the processes cannot hold shards of a method's parameters; None if they can.

    The classes declare it: `SHARDED` of a method and of an optimizer.
    """
    optimizer = method["optimizer"]
    if optimizer.get("release"):
        return "with release, gradients are used before they are shared"
    if not constant(plugins.source_name("optim", optimizer["module"]), "SHARDED", False):
        return (
            f"the optimizer {optimizer['module']} does not declare SHARDED: it may need whole "
            "matrices, and a process has rows of them"
        )
    if not constant(plugins.source_name("methods", method["module"]), "SHARDED", False):
        return (
            f"the method {method['module']} does not declare SHARDED: it may change or read whole "
            "matrices while it trains, and a process has rows of them"
        )
    return None
