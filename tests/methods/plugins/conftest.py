"""Installed packages for tests of their methods and optimizers."""

import sys
from pathlib import Path

import pytest
import yaml

from helpers.installed_package import install_example
from helpers.own_files import forget
from helpers.plugged import entries_of_the_docs


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages with the one of docs/examples; the test runs in a project."""
    folder, project = tmp_path / "site", tmp_path / "project"
    folder.mkdir()
    (project / "config").mkdir(parents=True)
    (project / "config/methods.yaml").write_text(yaml.safe_dump(entries_of_the_docs()))
    install_example(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(project)
    known = set(sys.modules)
    forget()
    yield folder
    for name in set(sys.modules) - known:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
    forget()
