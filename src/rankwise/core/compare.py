"""Whether two results of the same request agree: the same in all that is reproducible. Standard library only."""

import json
import os
from itertools import zip_longest
from pathlib import Path

# Of a result, what two jobs need not share: what is the same anyway, the machine, what else a card was used for, and reasons,
# which may name processes.
OWN = frozenset({"request", "environment", "cost", "measured_context_bytes", "reason"})
TIMES = ("_s", "_per_second", "_joules", "_watts")
FIRST = ("status", "metrics", "files", "splits")  # what tells most of how two results differ
LONGEST = 60  # characters of a value in a message
ABSENT = object()


def read(file: Path) -> dict | None:
    """A result; None if it is not there.

    Raises:
        ValueError: it is there but cannot be read, or is none.
    """
    why = "it has no request"
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(stored, dict) and isinstance(stored.get("request"), dict):
            return stored
    except FileNotFoundError:
        if not os.path.lexists(file):
            return None
        why = "it is a link to what is not there"
    except OSError as error:
        why = error.strerror
    except ValueError as error:  # neither text nor JSON
        why = f"it is torn: {error}"
    raise ValueError(
        f"{file}: cannot be read: {why}; allowed: a whole result; remove it, or copy it again"
    )


def gap(one: object, other: object, key: str = "") -> tuple[str, object, object] | None:
    """The first key at which two results differ in what is reproducible, and both values; None where they agree."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = [
            name for name in sorted({*one, *other}) if name not in OWN and not name.endswith(TIMES)
        ]
        names.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
        pairs = [(name, one.get(name, ABSENT), other.get(name, ABSENT)) for name in names]
    elif isinstance(one, list) and isinstance(other, list):
        pairs = [
            (str(i), *both) for i, both in enumerate(zip_longest(one, other, fillvalue=ABSENT))
        ]
    else:
        return None if one == other else (key, one, other)
    within = (gap(first, second, f"{key}.{name}" if key else name) for name, first, second in pairs)
    return next(filter(None, within), None)


def word(value: object) -> str:
    """A value in a message."""
    text = "nothing" if value is ABSENT else json.dumps(value, sort_keys=True)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def machine(stored: dict) -> str:
    """Where a result was made: device, its name, driver and system."""
    place, asked = stored.get("environment", {}), stored["request"].get("device", "cpu")
    name = (
        stored.get("cost", {}).get("device_name")
        or place.get("device_name")
        or place.get("processor")
    )
    return ", ".join(
        filter(
            None, (stored.get("device", asked), name, place.get("driver"), place.get("platform"))
        )
    )
