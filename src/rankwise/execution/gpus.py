"""The cards of this machine that may be used, and what others have on them.

They are those that the driver's nvidia-smi names (a card that is split by MIG is its parts), less what CUDA_VISIBLE_DEVICES
leaves out, which SLURM sets; its numbers count in nvidia-smi's order. Where that program lacks, the driver's files in /proc
give cards without sizes. RANKWISE_CARDS names a JSON file that stands for all of it, to keep to some cards or to try out many:

    [{"uuid": "GPU-5d5ba0d6-...", "name": "NVIDIA H100", "memory_gib": 80}]

Standard library only: every job on a card asks here before it has loaded anything.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rankwise.core import settings

GIB, MIB = 2**30, 2**20
PROC = Path("/proc/driver/nvidia/gpus")
SMI, SMI_S = "nvidia-smi", 60
KEYS = {"uuid": str, "name": str, "memory_gib": int | float}


class CardError(ValueError):
    """What is asked of the cards cannot be had; one sentence."""


class Card(NamedTuple):
    """One card, or one part of a card that is split."""

    uuid: str
    name: str
    memory_bytes: int  # 0: not known

    def __str__(self) -> str:
        size = f", {self.memory_bytes / GIB:.1f} GiB" if self.memory_bytes else ""
        return f"{self.uuid} ({self.name}{size})"


def found(environment: Mapping[str, str] = os.environ) -> list[Card]:
    """The cards that this process may use, none where there is no driver.

    Raises:
        CardError: RANKWISE_CARDS or CUDA_VISIBLE_DEVICES is wrong; one sentence.
    """
    if pool := settings.read("RANKWISE_CARDS", environment):
        return _pool(Path(pool))
    return _visible(_of_driver(), settings.given("CUDA_VISIBLE_DEVICES", environment))


def _pool(path: Path) -> list[Card]:
    where = f"RANKWISE_CARDS: {path}"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CardError(
            f"{where}: got {error.strerror}, allowed: a JSON file that can be read"
        ) from None
    except ValueError as error:
        raise CardError(f"{where}: got {error}, allowed: JSON") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise CardError(
            f"{where}: got {json.dumps(entries)[:60]}, allowed: a list of cards, each with {', '.join(KEYS)}"
        )
    cards = [_entry(f"{where}: {number}", entry) for number, entry in enumerate(entries)]
    twice = [
        card.uuid
        for number, card in enumerate(cards)
        if card.uuid in {other.uuid for other in cards[:number]}
    ]
    if twice:
        raise CardError(f"{where}: got uuid {twice[0]!r} twice, allowed: each card once")
    return cards


def _entry(where: str, entry: dict) -> Card:
    for name in [*entry, *KEYS]:
        if name not in KEYS or name not in entry:
            raise CardError(
                f"{where}: got {', '.join(entry) or 'nothing'}, allowed: {', '.join(KEYS)}"
            )
    for name, kind in KEYS.items():
        if not isinstance(entry[name], kind) or isinstance(entry[name], bool):
            raise CardError(
                f"{where}.{name}: got {entry[name]!r}, allowed: a {'number' if name == 'memory_gib' else 'text'}"
            )
    if not re.fullmatch(r"[\w.-]+", entry["uuid"]):
        raise CardError(
            f"{where}.uuid: got {entry['uuid']!r}, allowed: letters, digits, '-', '_' and '.'"
        )
    if not entry["memory_gib"] > 0:
        raise CardError(
            f"{where}.memory_gib: got {entry['memory_gib']}, allowed: more than 0, in GiB"
        )
    return Card(entry["uuid"], entry["name"], int(entry["memory_gib"] * GIB))


def _of_driver() -> list[Card]:
    lines = _smi("--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits")
    if lines is None:
        return _of_proc()
    cards = [
        Card(uuid, name, _mib(size)) for uuid, name, size in (line.split(", ") for line in lines)
    ]
    parts = _parts()
    return [part for card in cards for part in parts.get(card.uuid, [card])]


def _parts() -> dict[str, list[Card]]:
    """UUID of a card that MIG splits -> its parts; their names tell their sizes: `MIG 1g.10gb`."""
    found, card = {}, ("", "")
    for line in _smi("-L") or []:
        if whole := re.match(r"GPU \d+: (.+) \(UUID: (\S+)\)", line):
            card = whole.groups()
        elif part := re.match(r"\s+MIG (\S+?\.(\d+)gb\S*)\s+Device\s+\d+: \(UUID: (\S+)\)", line):
            found.setdefault(card[1], []).append(
                Card(part[3], f"{card[0]} MIG {part[1]}", int(part[2]) * GIB)
            )
    return found


def _of_proc() -> list[Card]:
    texts = [path.read_text(encoding="utf-8") for path in sorted(PROC.glob("*/information"))]
    fields = [
        dict(re.findall(r"^([^:\n]+):[ \t]*(.*)$", text, flags=re.MULTILINE)) for text in texts
    ]
    cards = [
        Card(one.get("GPU UUID", "?").strip(), one.get("Model", "NVIDIA GPU").strip(), 0)
        for one in fields
    ]
    return [card for card in cards if "?" not in card.uuid]  # a container is not told of the others


def _smi(*arguments: str) -> list[str] | None:
    """Lines that nvidia-smi prints; None where it lacks or finds no driver."""
    if shutil.which(SMI) is None:
        return None
    try:
        done = subprocess.run(
            [SMI, *arguments], capture_output=True, text=True, timeout=SMI_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else [line for line in done.stdout.splitlines() if line.strip()]


def _mib(text: str) -> int:
    return int(text) * MIB if text.strip().isdigit() else 0


def _visible(cards: list[Card], asked: str | None) -> list[Card]:
    """The cards that CUDA_VISIBLE_DEVICES names: by number, or by the beginning of a UUID. CUDA stops at `-1` and at words."""
    if asked is None or not cards:
        return cards
    kept: list[Card] = []
    for name in filter(None, (part.strip() for part in asked.split(","))):
        if not name.isdigit() and not name.startswith(("GPU-", "MIG-")):
            break
        match = [
            c
            for i, c in enumerate(cards)
            if (str(int(name)) == str(i) if name.isdigit() else c.uuid.startswith(name))
        ]
        if len(match) != 1:
            allowed = ", ".join(f"{number} or {card.uuid}" for number, card in enumerate(cards))
            raise CardError(f"environment: CUDA_VISIBLE_DEVICES: got {name!r}, allowed: {allowed}")
        kept += [card for card in match if card not in kept]
    return kept


def used_bytes(cards: list[Card]) -> dict[str, int]:
    """UUID -> what everybody, we included, has on a card; a card of which the driver does not tell is not in it."""
    lines = _smi("--query-gpu=uuid,memory.used", "--format=csv,noheader,nounits") or []
    found = {uuid: _mib(size) for uuid, size in (line.split(", ") for line in lines)}
    return {card.uuid: found[card.uuid] for card in cards if card.uuid in found}


def processes(cards: list[Card]) -> dict[str, list[str]]:
    """UUID -> `name (pid 7)` of each process that computes on a card, ours among them. A container may see none."""
    lines = _smi("--query-compute-apps=gpu_uuid,pid,process_name", "--format=csv,noheader") or []
    rows = [line.split(", ", 2) for line in lines]
    return {
        card.uuid: [f"{Path(row[2]).name} (pid {row[1]})" for row in rows if row[0] == card.uuid]
        for card in cards
    }
