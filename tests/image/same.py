"""Whether two folders of results agree: `same.py ONE OTHER`. Times and places may differ, nothing else of a request's answer."""

import json
import sys
from pathlib import Path

COMPARED = ("status", "metrics", "history", "examples")
MEASURED = ("forward", "throughput")  # what they measure is time


def main(one: Path, other: Path) -> None:
    """Exit with the first results that differ, or when there was nothing to compare."""
    files = sorted(
        path.relative_to(one)
        for kind in ("runs", "profiles")
        for path in (one / "store" / kind).rglob("*.json")
    )
    pairs = [
        (file, read(one / file), read(other / file)) for file in files if (other / file).is_file()
    ]
    pairs = [
        pair
        for pair in pairs
        if pair[1].get("request") == pair[2].get("request") and pair[0].stem not in MEASURED
    ]
    differ = [
        str(file)
        for file, mine, theirs in pairs
        if any(mine.get(key) != theirs.get(key) for key in COMPARED)
    ]
    if differ or not pairs:
        raise SystemExit(f"{len(differ)} of {len(pairs)} results differ: {', '.join(differ[:5])}")
    print(f"{len(pairs)} results of the same requests are equal to the last digit")


def read(path: Path) -> dict:
    """A file's JSON."""
    return json.loads(path.read_text())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
