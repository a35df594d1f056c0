"""Digests cover exactly the code that a job executes, and are the same on every Python."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.repository import ROOT
from rankwise.core import environment, provenance
from rankwise.core.lock import lock_digest
from rankwise.study.plan import Plan

SAMPLE = '''
"""A module."""
import os  # a comment
from typing import Literal

@staticmethod
def f(a: int = 1, *, b: str = "x", **rest) -> str:
    """Docstring."""
    match a:
        case 1 | 2 if (n := a):
            return f"{n!r:>{10}} {os.sep}"
        case {"k": v, **others}:
            yield from [v async for v in others]
    try:
        pass
    except* ValueError:
        raise
    with (open("a") as x, open("b") as y):
        del x, y
    return lambda *q: {**rest, 1: 2.5, b"x": 3j, ...: None}
'''
SAMPLE_DIGEST = "e4066e44811eb504"  # computed by Python 3.11, 3.12 and 3.13
ORIGINAL = "import os\ndef f():\n    return os.sep\n"


def digest_of(text: str, tmp_path: Path) -> str:
    file = tmp_path / "module.py"
    file.write_text(text)
    return provenance.code_digest_now(file)


@pytest.mark.parametrize(
    "edited",
    [
        'import os\n\n\n# a comment\ndef f():\n    """Other words."""\n    return os.sep  # why\n',
        "import os\ndef f():\n    return (os.sep)\n",
        'import os\ndef f():\n    """Words."""\n\n    return os.sep\n',
    ],
)
def test_comments_docstrings_and_layout_do_not_change_the_digest(
    edited: str, tmp_path: Path
) -> None:
    assert digest_of(edited, tmp_path) == digest_of(ORIGINAL, tmp_path)


@pytest.mark.parametrize(
    "edited",
    [
        "import os\ndef f():\n    return os.altsep\n",
        "import os\ndef g():\n    return os.sep\n",
        "def f():\n    return os.sep\n",
    ],
)
def test_code_changes_the_digest(edited: str, tmp_path: Path) -> None:
    assert digest_of(edited, tmp_path) != digest_of(ORIGINAL, tmp_path)


def test_a_function_that_is_only_a_docstring_has_a_digest(tmp_path: Path) -> None:
    first = digest_of('def f():\n    """Words."""\n', tmp_path)
    assert digest_of('def f():\n    """Other."""\n', tmp_path) == first


def pythons() -> list[str]:
    """This Python, and every other version that is installed."""
    found = [shutil.which(f"python3.{minor}") for minor in range(11, 16)]
    return [sys.executable, *(path for path in found if path)]


def test_the_digest_is_the_same_on_every_python(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text(SAMPLE)
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "src")!r})
from pathlib import Path
from rankwise.core import environment, provenance
print(provenance.code_digest_now(Path({str(file)!r})))
"""
    for python in pythons():
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
        # Another version may fail: the stub of a version manager need not lead to a Python.
        if done.returncode == 0 or python == sys.executable:
            assert done.stdout.strip() == SAMPLE_DIGEST, (python, done.stderr)


def test_a_closure_holds_exactly_the_modules_that_an_import_executes() -> None:
    closure = provenance.source_closure("rankwise.optim.projected_adam")
    parts = {"rankwise.optim.parts.projectors", "rankwise.optim.parts.rules"}
    assert {"rankwise", "rankwise.optim", *parts} < closure
    foreign = ("rankwise.methods", "rankwise.training.run")
    assert not any(name.startswith(foreign) for name in closure)


def test_no_job_depends_on_a_method_that_it_does_not_run(plan: Plan) -> None:
    for cell in plan.cells("train"):
        code = plan.request("train", cell)["code"]
        modules = {name for name in code if name.startswith("rankwise.methods.")}
        methods = {name for name in modules if not name.startswith("rankwise.methods.parts")}
        assert methods == {f"rankwise.methods.{plan.method('train', cell)['module']}"}


def digests_of_loaded_sources() -> dict[str, str]:
    """Digests of every module of Rankwise that is loaded now, and of its data files."""
    digests = {}
    for name, module in list(sys.modules.items()):
        if name.startswith("rankwise"):
            digests[name] = provenance.code_digest_now(Path(module.__file__))
            for key, file in provenance.data_files(name).items():
                digests[key] = provenance.code_digest_now(file)
    return digests


def test_a_job_refuses_a_source_that_changed_or_was_not_declared(plan: Plan) -> None:
    name = "workflow_scripts/train.py"
    code = plan.request("train", plan.cells("train")[0])["code"]
    declared = {**digests_of_loaded_sources(), name: code[name]}
    provenance.verify(declared, ROOT / name)
    with pytest.raises(
        provenance.SourceChanged, match=r"config\.py: changed since the workflow was planned"
    ):
        provenance.verify({**declared, "rankwise.core.config": "0" * 16}, ROOT / name)
    del declared["rankwise.core.config"]
    with pytest.raises(provenance.SourceChanged, match=r"config\.py: loaded, but not declared"):
        provenance.verify(declared, ROOT / name)


def test_the_digest_of_a_lock_depends_on_its_pins_alone(tmp_path: Path) -> None:
    lock, reordered, changed = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    lock.write_text("b==2 \\\n    --hash=sha256:1\na==1\n")
    reordered.write_text("# locked\na==1  # via b\nb==2 --hash=sha256:1\n")
    changed.write_text("a==1\nb==2 --hash=sha256:2\n")
    assert lock_digest(lock) == lock_digest(reordered) != lock_digest(changed)


def test_the_locks_agree_with_each_other() -> None:
    locks = {}
    for name in ("cpu", "report", "dev", "gpu"):
        locks[name] = environment.locked_versions(ROOT / f"envs/{name}.lock")
    for package in set().union(*locks.values()):
        versions = {lock[package] for lock in locks.values() if package in lock}
        assert len(versions) == 1, (package, versions)
    assert "--hash=sha256:" in (ROOT / "envs/gpu.lock").read_text()
    assert locks["cpu"]["torch"] == locks["gpu"]["torch"]


def test_the_conda_file_has_the_same_pins() -> None:
    text = (ROOT / "envs/environment.yaml").read_text()
    for lock in ("cpu", "report"):
        for name, version in environment.locked_versions(ROOT / f"envs/{lock}.lock").items():
            assert f"- {name}=={version}\n" in text
