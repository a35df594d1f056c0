"""A clone that is moved or copied runs with the environment in it, and with its own sources."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from helpers.repository import CLEAN, copy_repository

# The small environment of these tests borrows the libraries of the one that runs them.
LIBRARIES = {"PYTHONPATH": sysconfig.get_path("purelib")}
SAYS_WHERE = "import rankwise, sys; print(rankwise.__file__); print(sys.executable)"


def run(*command: str, folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**CLEAN, **LIBRARIES}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with an environment as pip leaves it: every script names the full path."""
    root = copy_repository(tmp_path_factory.mktemp("installed") / "clone")
    run(sys.executable, "-m", "venv", "--without-pip", ".venv", folder=root)
    install = ("install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", ".")
    run(".venv/bin/python3", "-m", "pip", *install, folder=root)
    assert str(root) in (root / ".venv/bin/rankwise").read_text().partition("\n")[0]
    (root / ".venv/ready").touch()
    return root


def moved(installed: Path, folder: Path) -> Path:
    """Another clone, in another place, from which the first place cannot be reached."""
    shutil.copytree(installed, folder, symlinks=True)
    return folder


def check(root: Path) -> None:
    """The command, the interpreter and the sources are those of the folder."""
    assert run(".venv/bin/rankwise", "--version", folder=root).startswith("rankwise ")
    package, python = run(".venv/bin/python3", "-c", SAYS_WHERE, folder=root).splitlines()
    assert Path(package) == root / "src/rankwise/__init__.py"
    assert Path(python).parent == root / ".venv/bin"
    activated = ". .venv/bin/activate; echo $VIRTUAL_ENV; command -v rankwise"
    place, command = run("bash", "-c", activated, folder=root).splitlines()
    assert (Path(place), Path(command)) == (root / ".venv", root / ".venv/bin/rankwise")


def test_make_mends_the_environment_of_a_moved_clone(installed: Path, tmp_path: Path) -> None:
    root = moved(installed, tmp_path / "moved here")  # a path with a space
    hidden = installed.with_name("hidden")
    installed.rename(hidden)
    try:
        with pytest.raises(FileNotFoundError):  # its interpreter is gone
            run(".venv/bin/rankwise", "--version", folder=root)
        planned = run("make", "-n", "demo", folder=root)
        assert "relocatable.py" in planned
        assert "pip install" not in planned
        run("make", "mend", folder=root)
        check(root)
        assert "relocatable.py" not in run("make", "-n", "demo", folder=root)
    finally:
        hidden.rename(installed)


def test_an_environment_of_make_can_be_moved_and_copied(installed: Path, tmp_path: Path) -> None:
    first = moved(installed, tmp_path / "first")
    run(".venv/bin/python3", "envs/relocatable.py", ".venv", folder=first)
    second = moved(first, tmp_path / "second")  # a copy: the first one is still there
    assert run(".venv/bin/rankwise", "--version", folder=second).startswith("rankwise ")
    package, _ = run(".venv/bin/python3", "-c", SAYS_WHERE, folder=second).splitlines()
    assert Path(package) == second / "src/rankwise/__init__.py"
    linked = tmp_path / "bin/rankwise"
    linked.parent.mkdir()
    linked.symlink_to(second / ".venv/bin/rankwise")
    assert run(str(linked), "--version", folder=tmp_path).startswith("rankwise ")
    long_path = second / ".venv/bin/long"  # pip's header where the first line would be too long
    long_path.write_text(
        f"#!/bin/sh\n'''exec' {second}/gone/python3 \"$0\" \"$@\"\n' '''\nprint(7)\n"
    )
    long_path.chmod(0o755)
    run("make", "mend", folder=second)
    assert run(".venv/bin/long", folder=second) == "7\n"
    check(second)
    assert os.access(second / ".venv/bin/rankwise", os.X_OK)
