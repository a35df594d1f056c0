"""Whether the methods and optimizers that are not Rankwise's own can be imported, before any job.

Planning reads their source, and finds the mistakes that a text shows. What a file does while it is
imported only Python can tell. A process of its own imports them, because that loads torch; it is
started only for a study that uses any.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from rankwise.core import paths, plugins
from rankwise.study.jobs import PlannedJob

PROGRAM = """
import json, sys
from rankwise.core.errors import BrokenModule
from rankwise.methods.parts.base import method_class, optimizer_class

load = {"methods": method_class, "optim": optimizer_class}
for folder, module in json.loads(sys.argv[1]):
    try:
        load[folder](module)
    except BrokenModule as error:
        print("rankwise:", " ".join(str(error).split()))
"""
ANSWER = "rankwise: "  # before each sentence: an imported file may print as well


def not_importable(jobs: Iterable[PlannedJob], root: Path) -> list[str]:
    """One sentence for each class that cannot be imported on this machine.

    Args:
        jobs: The jobs that would run.
        root: The project's folder.
    """
    named = sorted({name for job in jobs for name in _classes(job)})
    if not named:
        return []
    command = [sys.executable, "-c", PROGRAM, json.dumps(named)]
    environment = {**os.environ, "PYTHONPATH": str(paths.PACKAGE.parent)}  # as jobs have it
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    return [line.removeprefix(ANSWER) for line in lines if line.startswith(ANSWER)]


def _classes(job: PlannedJob) -> list[tuple[str, str]]:
    """The method and the optimizer of a job, as far as they are a user's or a package's."""
    method = job.request.get("method")
    if not method:
        return []
    named = [("methods", method["module"]), ("optim", method["optimizer"]["module"])]
    return [name for name in named if not _is_shipped(*name)]


def _is_shipped(folder: str, module: str) -> bool:
    if plugins.is_reference(module):
        return plugins.is_covered(plugins.top_level(module), paths.WORKFLOW / "envs")
    return (paths.PACKAGE / folder / f"{module}.py").is_file()
