"""What one of several processes holds: `sharding` of a profile or a training run.

The log of a process that trains its part of the batch alone is written anew as the log of one of
several (ranks/): `ddp` and `fsdp2` as training runs them, `fsdp1` and `fsdp1_no_shard` as torch's
FullyShardedDataParallel does, `zero1` to `zero3` as DeepSpeed does.
Whatever follows (peaks, timeline, allocator) reads that log as it reads the other.
"""

from rankwise.measure.memory.ranks import notes as noted
from rankwise.measure.memory.ranks import zero
from rankwise.measure.memory.ranks.ddp import Ddp
from rankwise.measure.memory.ranks.fsdp1 import Fsdp1, Fsdp1NoShard
from rankwise.measure.memory.ranks.fsdp2 import Fsdp2
from rankwise.measure.memory.ranks.log import Log
from rankwise.measure.memory.ranks.notes import Notes
from rankwise.measure.memory.tracker import Tracker
from rankwise.methods.parts.base import Method, method_class, optimizer_class

WRITERS = {
    "ddp": Ddp,
    "fsdp1": Fsdp1,
    "fsdp1_no_shard": Fsdp1NoShard,
    "fsdp2": Fsdp2,
    **zero.STAGES,
}
PARTS = {
    "fsdp1": noted.layers_and_adapters,
    "fsdp1_no_shard": noted.layers_and_adapters,
    "fsdp2": noted.layers,
    "zero3": noted.modules_with_parameters,
}


def observer(request: dict, tracker: Tracker) -> Notes:
    """What observes a step in place of the tracker, where several processes train.

    Args:
        request: With `sharding`.
        tracker: Gets everything that the observer is told.
    """
    return Notes(tracker, PARTS.get(request["sharding"], noted.nothing))


def log(request: dict, notes: Notes) -> Tracker | Log:
    """The log of one of the processes.

    Args:
        request: Of a ledger or a prediction; its batch is that of one process.
        notes: After all phases.
    """
    tracker = notes.tracker
    if request["sharding"] == "ddp" and not _uses_ddp(request, notes):
        return tracker  # gradients are averaged in place
    return WRITERS[request["sharding"]](tracker, notes, request).write()


def state_rows(request: dict, rows: list[dict], notes: Notes) -> list[dict]:
    """The optimizer's state by tensor, as one of the processes has it.

    Args:
        request: With `processes` and `sharding`.
        rows: With `tensor`, `dtype` and `state_bytes` of a process alone.
        notes: After all phases.
    """
    if request["sharding"] in ("ddp", "fsdp1_no_shard"):
        return rows
    count = request["processes"]
    if request["sharding"] in ("fsdp1", "fsdp2"):
        return [{**row, "state_bytes": -(-row["state_bytes"] // count)} for row in rows]
    widths = {"bfloat16": 2, "float16": 2}
    shared = []
    for row in rows:
        width = widths.get(row["dtype"])
        size = row["state_bytes"] * zero.FP32 // width if width else row["state_bytes"]
        dtype = "float32" if width else row["dtype"]
        shared.append({"tensor": row["tensor"], "dtype": dtype, "state_bytes": -(-size // count)})
    trained = sum(param.elements for param in notes.parameters if param.trains)
    weights = {"tensor": "weights", "dtype": "float32"}
    return [*shared, {**weights, "state_bytes": zero.FP32 * -(-trained // count)}]


def _uses_ddp(request: dict, notes: Notes) -> bool:
    """Whether torch's DDP sends the gradients; as training/distribution.py decides."""
    entry = request["method"]
    optimizer = entry["optimizer"]
    cls = optimizer_class(optimizer["module"])
    averages = getattr(cls, "BY_BLOCK", False) or getattr(cls, "FORWARD_ONLY", False)
    changes_parameters = method_class(entry["module"]).after_step is not Method.after_step
    if optimizer.get("release") or averages or changes_parameters:
        return False
    # DDP would wait for the gradient of a parameter that the task does not use.
    arrived = {note.subject for note in notes.notes if note.what == noted.GRADIENT}
    return all(n in arrived for n, param in enumerate(notes.parameters) if param.trains)
