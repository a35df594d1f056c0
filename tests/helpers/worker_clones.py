"""A clone with the modules that the client and the server of jobs need, and one script."""

import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from helpers.repository import ROOT

REQUEST = json.dumps({"code": {}})


def make_clone(root: Path) -> Path:
    """A clone without scripts."""
    package = root / "src/rankwise"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in ("core", "execution"):
        shutil.copytree(ROOT / "src/rankwise" / name, package / name)
    (root / "workflow_scripts").mkdir()
    return root


def make_light(clone: Path) -> Path:
    """Let the server of a clone import nothing, which takes seconds otherwise."""
    server = clone / "src/rankwise/execution/worker_server.py"
    nothing = "LIBRARIES = dict.fromkeys((TORCH, TORCH_AND_BITS, DOCUMENTS), ())"
    text, count = re.subn(
        r"^LIBRARIES = \{.*?^\}", nothing, server.read_text(), flags=re.DOTALL | re.MULTILINE
    )
    assert count == 1
    server.write_text(text)
    return clone


def job(clone: Path, text: str, *runner: str) -> list[str]:
    """The command that runs a script of this text, by `worker_client` unless a runner is given."""
    (clone / "workflow_scripts/script.py").write_text(text)
    module, *options = runner or ["worker_client"]
    command = [sys.executable, "-m", f"rankwise.execution.{module}", *options]
    return [*command, "script", "--request", REQUEST]


def wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"
