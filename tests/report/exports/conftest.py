"""The exports of one study, which several test files read."""

from pathlib import Path

import pytest

from helpers.exported import STUDY, write_results
from helpers.repository import ROOT
from rankwise.core import result
from rankwise.report import exports
from rankwise.study import outputs
from rankwise.study.plan import Plan


@pytest.fixture(scope="session")
def study() -> Plan:
    return Plan(STUDY, ROOT)


@pytest.fixture(scope="session")
def results(study: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's folder of results."""
    root = tmp_path_factory.mktemp("study")
    write_results(study, root)
    return root / study.results


@pytest.fixture(scope="session")
def exported(study: Plan, results: Path) -> Path:
    """The exports, written over files of an earlier job."""
    folder = results / "exports"
    graph = folder / "system_a" / "gpt2" / "rsvd" / "imdb"
    result.write_text(graph / "r4" / "epoch_loss.csv", "epoch,train_loss,eval_loss\n1,1,1\n")
    result.write_text(folder / "system_c" / "gpt2-imdb-rsvd-r4-seed0" / "summary.json", "{}")
    exports.exports(outputs.exports_request(study), folder / "README.md")
    return folder
