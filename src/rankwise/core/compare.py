"""Compare JSON values key by key, and decide whether two results of the same request agree.

`differences` is the one place where two JSON values are compared. `result_difference` applies it to
two results, leaving out what two correct jobs may measure differently: times, energy, the machine.
Standard library only.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from rankwise.core import sealed

# Keys of a result that two correct jobs need not share. The request is equal anyway;
# `measured_context_bytes` depends on what else runs on the GPU; a reason may name processes, and
# `diverged` is a part of a reason.
NOT_REPRODUCIBLE = frozenset(
    {"request", "environment", "cost", "measured_context_bytes", "reason", "diverged"}
)
NOT_REPRODUCIBLE_ENDINGS = ("_s", "_per_second", "_joules", "_watts")  # times and energy
# Profiles that measure the machine: two correct jobs share nothing that could be compared.
TIMED = ("forward", "throughput")
MOST_TELLING = ("status", "metrics", "files", "splits")  # compared before the other keys
LONGEST_SHOWN = 60  # characters of a value in a message
ABSENT = object()  # stands for a value that only the other side has

Keys = Callable[[Iterable[str]], Iterable[str]]


class Difference(NamedTuple):
    """One place where two JSON values differ; a value that is missing on one side is `ABSENT`."""

    key: str  # `metrics.accuracy_fraction`, `history.3.update`
    first: object
    second: object


def differences(
    first: object, second: object, keys: Keys = sorted, into_lists: bool = True, key: str = ""
) -> Iterator[Difference]:
    """Yield every place where two JSON values differ, depth first.

    Args:
        first: A JSON value.
        second: The value to compare it with.
        keys: Takes the names of two mappings' keys and returns those to compare, in order.
        into_lists: Compare lists item by item; otherwise a list is a value like any other.
        key: Path of the two values, for nested calls.
    """
    if isinstance(first, dict) and isinstance(second, dict):
        for name in keys({*first, *second}):
            pair = first.get(name, ABSENT), second.get(name, ABSENT)
            yield from differences(*pair, keys, into_lists, f"{key}.{name}" if key else name)
    elif into_lists and isinstance(first, list) and isinstance(second, list):
        for index, pair in enumerate(zip_longest(first, second, fillvalue=ABSENT)):
            yield from differences(*pair, keys, into_lists, f"{key}.{index}" if key else f"{index}")
    elif first != second:
        yield Difference(key, first, second)


def result_difference(first: dict, second: dict) -> Difference | None:
    """The first place where two results of one request differ in what is reproducible.

    Returns:
        None where they agree, and for profiles that measure times.
    """
    if first.get("request", {}).get("measurement") in TIMED:
        return None
    return next(differences(first, second, keys=_reproducible), None)


def _reproducible(names: Iterable[str]) -> list[str]:
    """Keys whose values two correct jobs must share, the most telling ones first."""
    kept = [name for name in names if name not in NOT_REPRODUCIBLE]
    kept = [name for name in kept if not name.endswith(NOT_REPRODUCIBLE_ENDINGS)]
    first = [name for name in MOST_TELLING if name in kept]
    return first + sorted(set(kept) - set(first))


def shown(value: object, longest: int = LONGEST_SHOWN) -> str:
    """A JSON value as a message shows it: shortened, and `nothing` where it is `ABSENT`."""
    text = "nothing" if value is ABSENT else json.dumps(value, sort_keys=True)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def read(file: Path) -> dict | None:
    """Read a result that may be missing or broken.

    Returns:
        The result, or None if there is no file.

    Raises:
        ValueError: The file cannot be read, or is not as it was written.
    """
    try:
        return sealed.read(file)
    except FileNotFoundError:
        if not os.path.lexists(file):
            return None
        problem = "it is a link to what is not there"
    except OSError as error:
        problem = error.strerror
    except sealed.Damaged as error:
        problem = str(error).removeprefix(f"{file}: ")
    raise ValueError(
        f"{file}: cannot be read: {problem}; allowed: a whole result; remove it, or copy it again"
    )


def machine(result: dict) -> str:
    """Where a result was made: `cuda, NVIDIA H100, 580.65, Linux-6.8`, as far as it is recorded."""
    environment = result.get("environment", {})
    device = result.get("device", result["request"].get("device", "cpu"))
    device_name = (
        result.get("cost", {}).get("device_name")
        or environment.get("device_name")
        or environment.get("processor")
    )
    parts = (device, device_name, environment.get("driver"), environment.get("platform"))
    return ", ".join(part for part in parts if part)
