"""The nodes of a SLURM cluster, and the submissions that it could never run.

The answers of `sinfo` and `scontrol` are compared with the planned submissions before the first one
is made. Nodes that are down count as well, because they come back.

Standard library only: the Snakefile imports this module on the login node.
"""

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rankwise.core import probe
from rankwise.core.config import ConfigError
from rankwise.execution.slurm_request import FILE, Ask

SINFO_COLUMNS = "%P|%N|%c|%m|%l|%G"  # partition, node, CPUs, MiB, time limit, generic resources
TIMEOUT_S = 60
LONGEST_PAUSE_S = 180  # the longest time that the executor lets pass between two status checks


class Node(NamedTuple):
    """A node of a partition."""

    partition: str
    default: bool  # whether the partition is the cluster's default
    name: str
    cpus: int
    memory_mib: int
    minutes: int | None  # the partition's time limit; None: no limit
    gpus: dict[str, int]  # number by type; the type is "" where SLURM knows none

    def gpus_of(self, model: str | None) -> int:
        """The number of GPUs of a type, or of all types."""
        return self.gpus.get(model, 0) if model else sum(self.gpus.values())


# What the cluster has -----------------------------------------------------------------------------


def nodes() -> list[Node]:
    """Every node of every partition.

    Raises:
        ConfigError: There is no sinfo on this machine, or it does not answer.
    """
    lines = _answer("sinfo", "--noheader", "--Node", "--format", SINFO_COLUMNS).splitlines()
    return [read_node(line) for line in lines]


def remembered_s() -> int | None:
    """The seconds for which the controller remembers a job that has ended (MinJobAge)."""
    config = _answer("scontrol", "show", "config")
    match = re.search(r"^MinJobAge\s*=\s*(\d+)", config, re.MULTILINE)
    return int(match[1]) if match else None


def _answer(*command: str) -> str:
    """The output of a SLURM command.

    Raises:
        ConfigError: The command is not found, takes too long, or fails.
    """
    answer = probe.run(*command, seconds=TIMEOUT_S)
    if answer.trouble:
        allowed = f"a machine with a SLURM cluster that answers; {command[0]} {answer.trouble}"
        raise ConfigError("command line", "--executor", "slurm", allowed)
    return answer.printed


def read_node(line: str) -> Node:
    """A node from one line of sinfo, whose columns are SINFO_COLUMNS."""
    partition, name, cpus, memory, limit, generic = line.split("|")
    return Node(
        partition=partition.removesuffix("*"),
        default=partition.endswith("*"),  # sinfo marks the default partition with a star
        name=name,
        cpus=int(cpus),
        memory_mib=int(memory.rstrip("+")),
        minutes=minutes(limit),
        gpus=_gpus(generic),
    )


def _gpus(generic: str) -> dict[str, int]:
    """Number of GPUs by type, from generic resources such as `gpu:a100:4(S:0-1),shard:8`."""
    without_sockets = re.sub(r"\([^)]*\)", "", generic)
    gpus: dict[str, int] = {}
    for resource in without_sockets.split(","):
        kind, *rest = resource.split(":")
        if kind != "gpu":
            continue
        count = int(rest.pop()) if rest and rest[-1].isdigit() else 1
        model = "".join(rest)
        gpus[model] = gpus.get(model, 0) + count
    return gpus


def minutes(limit: str) -> int | None:
    """Minutes of a time limit; None for no limit.

    Args:
        limit: SLURM's `[days-]hours:minutes:seconds`, `minutes:seconds` or `minutes`.
    """
    if not limit[:1].isdigit():  # "infinite"
        return None
    days, _, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    hours, mins = (parts[0], parts[1]) if len(parts) == 3 else (0, parts[0])
    return int(days or 0) * 1440 + hours * 60 + mins


# What the cluster lacks ---------------------------------------------------------------------------


def refusals(
    asks: Iterable[Ask], study: str, command: str | None, folders: Iterable[Path]
) -> list[str]:
    """Every reason why the submissions of a study could not end well on this cluster.

    Args:
        asks: What the submissions ask for.
        study: The name of the study's file.
        command: The command that the executor asks for the status of jobs.
        folders: Folders that the executor and the jobs write in.

    Returns:
        One sentence a reason.
    """
    try:
        return [*problems(asks, nodes(), study), *forgets(command), *unwritable(folders)]
    except ConfigError as error:
        return [str(error)]


def problems(asks: Iterable[Ask], cluster: list[Node], study: str) -> list[str]:
    """A sentence for each kind of submission that no node could ever run: for its largest one."""
    sentences: dict[tuple, str] = {}
    for ask in sorted(asks, key=lambda ask: ask.size, reverse=True):
        reason = lacking(ask, cluster, study)
        if reason is not None:
            sentences.setdefault((ask.name, ask.partition, ask.gpus), str(reason))
    return list(dict.fromkeys(sentences.values()))


def lacking(ask: Ask, cluster: list[Node], study: str) -> ConfigError | None:
    """The first thing that a submission asks for and no node of its partition has.

    Nodes are compared by one thing after another, and only those that have everything so far are
    compared by the next.
    """
    if ask.partition:
        partitions = ask.partition.split(",")
    else:
        partitions = [node.partition for node in cluster if node.default]
    known = {node.partition for node in cluster}
    unknown = [name for name in partitions if name not in known]
    if unknown or not partitions:
        key = "gpu_partition (or partition)" if ask.gpus else "partition"
        return ConfigError(FILE, key, unknown[0] if unknown else None, known)
    candidates = [node for node in cluster if node.partition in partitions]
    names = list(dict.fromkeys(partitions))
    if ask.gpus and not any(node.gpus for node in candidates):
        with_gpus = {node.partition for node in cluster if node.gpus}
        allowed = with_gpus or "none, for no node of this cluster has a GPU"
        return ConfigError(FILE, "gpu_partition", ",".join(names), allowed)
    if ask.gpus and ask.model and not any(ask.model in node.gpus for node in candidates):
        models = {model or "nothing" for node in candidates for model in node.gpus}
        return ConfigError(FILE, "gpu_model", ask.model, models)
    return _too_large(ask, candidates, f"partition {', '.join(names)}", study)


def _too_large(ask: Ask, candidates: list[Node], where: str, study: str) -> ConfigError | None:
    """The first number that is too large for every candidate that is left."""
    limits = {
        "gpu": (ask.gpus, lambda node: node.gpus_of(ask.model), "the GPUs of a node"),
        "mem_mb": (ask.memory_mib, lambda node: node.memory_mib, "the MiB of a node"),
        "threads": (ask.cpus, lambda node: node.cpus, "the CPUs of a node"),
        "runtime": (ask.minutes, lambda node: node.minutes, "the minutes that a job may take"),
    }
    for key, (wanted, limit_of, what) in limits.items():
        largest = [limit_of(node) for node in candidates]
        remaining = []
        for node, limit in zip(candidates, largest, strict=True):
            if not wanted or limit is None or limit >= wanted:
                remaining.append(node)
        if not remaining:
            allowed = f"at most {max(largest)}, {what} in {where}"
            return ConfigError(study, f"{key} of {ask.name}", wanted, allowed)
        candidates = remaining
    return None


def forgets(command: str | None) -> list[str]:
    """Whether the controller forgets an ended job before the executor asks squeue for it.

    The executor would then wait for ever.
    """
    if command != "squeue":
        return []
    kept_s = remembered_s()
    if kept_s is None or kept_s >= LONGEST_PAUSE_S:
        return []
    allowed = (
        f"sacct here: ended jobs are forgotten after {kept_s} s (MinJobAge), and "
        f"{LONGEST_PAUSE_S} s pass between two looks"
    )
    return [str(ConfigError("profiles", "slurm-status-command", command, allowed))]


def unwritable(folders: Iterable[Path]) -> list[str]:
    """A sentence for each folder in which no file of 1 MiB can be written."""
    sentences = []
    for folder in dict.fromkeys(folders):
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(bytes(2**20))
        except OSError as error:
            sentences.append(
                f"{folder}: got a folder that cannot be written ({error.strerror}), "
                "allowed: one with room for files"
            )
    return sentences
