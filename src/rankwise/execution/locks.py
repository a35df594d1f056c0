"""Which run of Snakemake holds the lock on a project.

Snakemake locks the files of its run in `.snakemake/locks`, and does not say who it is. So each
run that holds the lock writes a note, `.snakemake/rankwise_runs/PROCESS.json`, and removes
it at its end. The note of a run that was killed stays; the next run that gets the lock removes it.

Standard library only: the Snakefile imports this module.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rankwise.core import process_names
from rankwise.core.files import durable_write

NOTES = Path(".snakemake/rankwise_runs")


class Run:
    """The run of Snakemake in this process.

    Args:
        root: The project's folder.
        study: The study's file, for the command that unlocks the folder.
    """

    def __init__(self, root: Path, study: str):
        self.folder = root / NOTES
        self.unlock = f"snakemake --unlock --configfile {shlex.quote(study)}"

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Keep a note of this run while it holds the lock. Without room for it, there is none."""
        name = process_names.name()
        file = self.folder / f"{name}.json"
        note = {
            "process": name,
            "pid": os.getpid(),
            "since": time.time(),
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        }
        with suppress(OSError):
            for other in self.folder.glob("*.json"):
                if process_names.is_alive(other.stem) is False:
                    other.unlink(missing_ok=True)
            with durable_write(file, sync=False) as part:
                part.write_text(json.dumps(note), encoding="utf-8")
        try:
            yield
        finally:
            with suppress(OSError):
                file.unlink(missing_ok=True)

    def refusal(self) -> str:
        """Why this run cannot have the lock: who holds it, and what to do."""
        notes = self._notes()
        running = [note for note in notes if process_names.is_alive(note["process"]) is not False]
        if running:
            others = "; ".join(map(_described, running))
            return (
                f"This folder is locked by another run of Snakemake: {others}. Allowed: one run at "
                "a time on the same files. Wait until it has ended, or stop it; it unlocks the "
                "folder itself"
            )
        if notes:
            return (
                f"This folder is still locked by a run of Snakemake that was killed: "
                f"{_described(notes[-1])}. No process of it runs any more. Unlock the folder with "
                f"`{self.unlock}`, then run again"
            )
        return (
            "This folder is locked by another run of Snakemake, which has left no note of its "
            "process. Allowed: one run at a time on the same files. If none runs here "
            f"(`pgrep -af snakemake`), unlock the folder with `{self.unlock}`, then run again"
        )

    def _notes(self) -> list[dict]:
        """The notes of other runs, the latest last."""
        notes = []
        for file in self.folder.glob("*.json"):
            with suppress(OSError, ValueError):  # it has ended meanwhile, or a disk was full
                notes.append(json.loads(file.read_text(encoding="utf-8")))
        return sorted(notes, key=lambda note: note["since"])


def _described(note: dict) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(note["since"]))
    return f"process {note['pid']}, since {since}, `{note['command']}`"
