"""Whether a lock is one that the index still answers: `lock.py LOCK RESOLVED`, the second resolved anew with the first's pins."""

import re
import sys
from pathlib import Path

PIN = re.compile(
    r"^(\S+==\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", flags=re.MULTILINE
)


def main(lock: Path, resolved: Path) -> None:
    """Exit with the pins that differ, and with those that have a hash of no file that the index has."""
    ours, found = pins(lock), pins(resolved)
    differ = sorted(set(ours) ^ set(found))
    unknown = [pin for pin in sorted(set(ours) & set(found)) if not ours[pin] <= found[pin]]
    if differ or unknown:
        raise SystemExit(
            f"{lock}: pins that are not the index's: {differ}; hashes that the index has not: {unknown}"
        )
    print(
        f"{lock}: {len(ours)} pins resolve for their platform, {sum(map(len, ours.values()))} hashes are the index's"
    )


def pins(lock: Path) -> dict[str, set[str]]:
    """`name==version` -> its hashes."""
    text = lock.read_text(encoding="utf-8")
    found = {pin: set(hashes.replace("\\", "").split()) for pin, hashes in PIN.findall(text)}
    bare = [line for line in text.splitlines() if "==" in line and line.split()[0] not in found]
    if bare or not found:
        raise SystemExit(f"{lock}: pins without a hash: {bare}")
    return found


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
