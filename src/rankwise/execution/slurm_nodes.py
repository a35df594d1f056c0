"""What a SLURM cluster has (sinfo), and what submissions ask for in vain: said before the first is made.

Nodes that are down now count, for they come back. Standard library: the Snakefile imports this on the login node.
"""

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rankwise.core import probe
from rankwise.core.config import ConfigError
from rankwise.execution.slurm_request import FILE, Ask

COLUMNS = "%P|%N|%c|%m|%l|%G"  # of sinfo: partition, node, CPUs, MiB, time limit, generic resources
PATIENCE_S = 60
LONGEST_PAUSE_S = 180  # between two looks of the executor at its jobs


class Node(NamedTuple):
    """A node of a partition."""

    partition: str
    default: bool
    name: str
    cpus: int
    memory_mib: int
    minutes: int | None  # the partition's limit
    gpus: dict[str, int]  # by type; "" where SLURM knows no type

    def gpus_of(self, model: str | None) -> int:
        """How many it has of a type, or of all."""
        return self.gpus.get(model, 0) if model else sum(self.gpus.values())


# What is there --------------------------------------------------------------------------------------------------------


def nodes() -> list[Node]:
    """Every node of every partition.

    Raises:
        ConfigError: there is no sinfo here, or it does not answer.
    """
    return [
        read_node(line)
        for line in _answer("sinfo", "--noheader", "--Node", "--format", COLUMNS).splitlines()
    ]


def remembered_s() -> int | None:
    """Seconds for which the controller remembers a job that has ended (MinJobAge)."""
    found = re.search(
        r"^MinJobAge\s*=\s*(\d+)", _answer("scontrol", "show", "config"), re.MULTILINE
    )
    return int(found[1]) if found else None


def _answer(*command: str) -> str:
    """What a command of SLURM prints; ConfigError if it is missing, fails or does not answer."""
    answer = probe.run(*command, seconds=PATIENCE_S)
    if answer.trouble:
        allowed = f"a machine with a SLURM cluster that answers; {command[0]} {answer.trouble}"
        raise ConfigError("command line", "--executor", "slurm", allowed)
    return answer.printed


def read_node(line: str) -> Node:
    """One line of sinfo in COLUMNS."""
    partition, name, cpus, memory, limit, generic = line.split("|")
    gpus: dict[str, int] = {}
    for one in re.sub(r"\([^)]*\)", "", generic).split(
        ","
    ):  # less sockets, as in gpu:a100:4(S:0-1)
        kind, *rest = one.split(":")
        if kind == "gpu":
            count = rest.pop() if rest and rest[-1].isdigit() else "1"
            gpus["".join(rest)] = gpus.get("".join(rest), 0) + int(count)
    own, default = partition.removesuffix("*"), partition.endswith("*")
    return Node(own, default, name, int(cpus), int(memory.rstrip("+")), minutes(limit), gpus)


def minutes(limit: str) -> int | None:
    """Minutes in SLURM's [days-]hours:minutes:seconds, minutes:seconds or minutes; None for no limit."""
    if not limit[:1].isdigit():
        return None
    days, _, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    hours, mins = (parts[0], parts[1]) if len(parts) == 3 else (0, parts[0])
    return int(days or 0) * 1440 + hours * 60 + mins


# What is missing ------------------------------------------------------------------------------------------------------


def refusals(
    asks: Iterable[Ask], study: str, command: str | None, folders: Iterable[Path]
) -> list[str]:
    """Every reason why these submissions of a study (the name of its file) could not end well on this cluster.

    `command` tells the executor how jobs are; in `folders`, it and the jobs write.
    """
    try:
        return [*problems(asks, nodes(), study), *forgets(command), *unwritable(folders)]
    except ConfigError as error:
        return [str(error)]


def problems(asks: Iterable[Ask], there: list[Node], study: str) -> list[str]:
    """A sentence for each kind of submission that no node could ever run."""
    worst: dict[tuple, str] = {}
    for one in sorted(asks, key=lambda one: one.size, reverse=True):
        if said := lacking(one, there, study):
            worst.setdefault((one.name, one.partition, one.gpus), str(said))
    return list(dict.fromkeys(worst.values()))


def lacking(one: Ask, there: list[Node], study: str) -> ConfigError | None:
    """The first thing that no node of the partition has, of the nodes that have everything before it; None if one has all."""
    named = (
        one.partition.split(",")
        if one.partition
        else [node.partition for node in there if node.default]
    )
    known = {node.partition for node in there}
    if not named or not known.issuperset(named):
        key = "gpu_partition (or partition)" if one.gpus else "partition"
        return ConfigError(
            FILE, key, next((name for name in named if name not in known), None), known
        )
    fit = [node for node in there if node.partition in named]
    if one.gpus and not any(node.gpus for node in fit):
        allowed = {
            node.partition for node in there if node.gpus
        } or "none, for no node of this cluster has a GPU"
        return ConfigError(FILE, "gpu_partition", ",".join(dict.fromkeys(named)), allowed)
    if one.gpus and one.model and not any(one.model in node.gpus for node in fit):
        return ConfigError(
            FILE,
            "gpu_model",
            one.model,
            {model or "nothing" for node in fit for model in node.gpus},
        )
    return _beyond(one, fit, f"partition {', '.join(dict.fromkeys(named))}", study)


def _beyond(one: Ask, fit: list[Node], where: str, study: str) -> ConfigError | None:
    """The first number that is too large for every node left."""
    kinds = {
        "gpu": (one.gpus, lambda node: node.gpus_of(one.model), "the GPUs of a node"),
        "mem_mb": (one.memory_mib, lambda node: node.memory_mib, "the MiB of a node"),
        "threads": (one.cpus, lambda node: node.cpus, "the CPUs of a node"),
        "runtime": (one.minutes, lambda node: node.minutes, "the minutes that a job may take"),
    }
    for key, (wanted, has, what) in kinds.items():
        most = [has(node) for node in fit]
        fit = [
            node
            for node, there in zip(fit, most, strict=True)
            if not wanted or there is None or there >= wanted
        ]
        if not fit:
            return ConfigError(
                study, f"{key} of {one.name}", wanted, f"at most {max(most)}, {what} in {where}"
            )
    return None


def forgets(command: str | None) -> list[str]:
    """Whether the controller forgets an ended job before squeue has been asked for it: then the executor waits for ever."""
    if command != "squeue" or (kept := remembered_s()) is None or kept >= LONGEST_PAUSE_S:
        return []
    allowed = f"sacct here: ended jobs are forgotten after {kept} s (MinJobAge), and {LONGEST_PAUSE_S} s pass between two looks"
    return [str(ConfigError("profiles", "slurm-status-command", command, allowed))]


def unwritable(folders: Iterable[Path]) -> list[str]:
    """Folders in which no file of 1 MiB can be written: read-only, full, or not there."""
    found = []
    for folder in dict.fromkeys(folders):
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(bytes(2**20))
        except OSError as error:
            found.append(
                f"{folder}: got a folder that cannot be written ({error.strerror}), allowed: one with room for files"
            )
    return found
