"""Compare JSON values key by key, and decide whether two results of the same request agree.

`differences` is the one place where two JSON values are compared. `result_difference` applies it to
two results, leaving out what two correct jobs may measure differently: times, energy, the machine.

Two results of one kind of CPU must agree to the byte. Kernels of another instruction set add in
another order, so results of two kinds may differ by `TOLERANCE`. Measured on the demo's cells with
torch's kernels for each instruction set (benchmarks/determinism.md), which differed less than half
as much. Standard library only.
"""

import json
import math
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
# Relative tolerances between two kinds of CPU; one example's score varies more than a mean.
EXAMPLES, EXAMPLE_TOLERANCE, TOLERANCE = "examples", 0.01, 0.001
SMALLEST = 1e-5  # a difference below it does not matter, whatever the value
TRAINED_FILES = ".safetensors"  # files whose bytes follow from the numbers of a training
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
    found = _reproducible_differences(first, second)
    if are_of_two_cpus(first, second):
        found = (difference for difference in found if not is_tolerated(difference))
    return next(found, None)


def tolerated_difference(first: dict, second: dict) -> Difference | None:
    """The first place where two results of two kinds of CPU differ, if they agree nevertheless."""
    if result_difference(first, second) is not None:
        return None
    return next(_reproducible_differences(first, second), None)


def _reproducible_differences(first: dict, second: dict) -> Iterator[Difference]:
    if first.get("request", {}).get("measurement") not in TIMED:
        yield from differences(first, second, keys=_reproducible)


def are_of_two_cpus(first: dict, second: dict) -> bool:
    """Whether two results were computed on CPUs of two kinds.

    The kind is the processor's name, and the instruction set of torch's kernels where it is
    recorded. A result of a GPU is of no CPU.
    """
    results = (first, second)
    if any("cuda" in (result.get("device"), _asked_device(result)) for result in results):
        return False
    places = [result.get("environment", {}) for result in results]
    return any(
        name in places[0] and name in places[1] and places[0][name] != places[1][name]
        for name in ("processor", "cpu_capability")
    )


def is_tolerated(difference: Difference) -> bool:
    """Whether two kinds of CPU may differ so much; see `TOLERANCE`."""
    first, second = difference.first, difference.second
    if isinstance(first, str) and isinstance(second, str):
        is_digest = ".files." in f".{difference.key}"
        return is_digest and difference.key.endswith(TRAINED_FILES)
    are_floats = all(isinstance(value, float) for value in (first, second))
    tolerance = tolerance_of(difference.key)
    return are_floats and math.isclose(first, second, rel_tol=tolerance, abs_tol=SMALLEST)


def tolerance_of(key: str) -> float:
    """The relative tolerance of a value between two kinds of CPU."""
    return EXAMPLE_TOLERANCE if key.partition(".")[0] == EXAMPLES else TOLERANCE


def _asked_device(result: dict) -> str | None:
    return result.get("request", {}).get("device")


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


def amount(first: dict, second: dict, difference: Difference) -> str:
    """How much two results of two kinds of CPU differ, and how much they may; empty otherwise."""
    values = (difference.first, difference.second)
    if not are_of_two_cpus(first, second) or not all(map(_is_number, values)):
        return ""
    largest = max(abs(value) for value in values)
    relative = abs(values[0] - values[1]) / largest
    allowed = tolerance_of(difference.key) if all(isinstance(v, float) for v in values) else 0
    return f" (a relative difference of {relative:.2g}, allowed between two CPUs: {allowed:g})"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


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
    if device != "cuda":
        device_name = " ".join(filter(None, (device_name, environment.get("cpu_capability"))))
    parts = (device, device_name, environment.get("driver"), environment.get("platform"))
    return ", ".join(part for part in parts if part)
