"""What reruns when: a table of the promises that tests/workflow/test_rerun.py tests."""

import importlib.util
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType

HEAD = [["edit", "what runs again"], ["---", "---"]]


def promises(root: Path) -> ModuleType:
    """The module of the test, loaded without running it."""
    sys.path[:0] = [str(root / "src"), str(root / "tests")]
    path = root / "tests/workflow/test_rerun.py"
    spec = importlib.util.spec_from_file_location("rerun_promises", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(root: Path) -> str:
    """The promises as a Markdown table."""
    module = promises(root)
    rows = [[name, _words(module, jobs)] for name, (_, jobs) in module.PROMISES.items()]
    return "".join(f"| {' | '.join(row)} |\n" for row in [*HEAD, *rows])


def _words(module: ModuleType, jobs: set[str]) -> str:
    """A set of jobs by kind: `train: full, lora; table: runs`; whole groups by their name."""
    if not jobs:
        return "nothing"
    names_by_kind = defaultdict(list)
    for job in sorted(jobs):
        kind, _, name = job.partition(" ")
        names_by_kind[kind].append(name)
    parts = [_part(module, kind, names) for kind, names in names_by_kind.items()]
    return "; ".join(parts)


def _part(module: ModuleType, kind: str, names: list[str]) -> str:
    everything = {
        "train": module.TRAIN,
        "memory": module.MEMORY,
        "figure": module.FIGURES,
        "table": module.TABLES,
    }
    jobs = {f"{kind} {name}" for name in names}
    if names == [""]:
        return "the report page" if kind == "page" else f"the {kind}"
    if jobs == everything.get(kind):
        return f"every {kind} job" if kind in ("train", "memory") else f"every {kind}"
    return f"{kind}: {', '.join(names)}"
