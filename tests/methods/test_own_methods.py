"""A user's own method and optimizer, as docs/examples has them, in a project of their own."""

import ast
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers import conformance
from helpers.conformance import Case
from helpers.own_files import forget
from helpers.repository import CLEAN, ROOT
from rankwise.cli.methods_page import catalogue
from rankwise.core import provenance
from rankwise.core.config import ConfigError
from rankwise.core.errors import BrokenModule
from rankwise.execution import worker_client
from rankwise.measure.memory.persistent import memory
from rankwise.methods.parts.base import method_class
from rankwise.study.plan import Plan

EXAMPLES = ROOT / "docs/examples"
OWN = ("norms_only", "full_sign_sgd")
own_entries = pytest.mark.parametrize("name", OWN)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder outside of the clone with the examples as they stand; the test runs in it."""
    folder = tmp_path / "project"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(folder)
    for package in ("methods", "optim"):
        module = importlib.import_module(f"rankwise.{package}")
        monkeypatch.setattr(module, "__path__", list(module.__path__))
    forget()
    yield folder
    for name in ("rankwise.methods.norms_only", "rankwise.optim.sign_sgd"):
        sys.modules.pop(name, None)
    forget()


def add(project: Path, module: str, text: str, **entry: object) -> None:
    """Add a method's file, and an entry of the same name."""
    (project / f"methods/{module}.py").write_text(text)
    entries = yaml.safe_load((project / "config/methods.yaml").read_text())
    entries[module] = {"module": module, "learning_rate": 1e-3, **entry}
    (project / "config/methods.yaml").write_text(yaml.safe_dump(entries))


def plan_of(project: Path, *methods: str) -> Plan:
    grid = {"models": ["tiny"], "datasets": ["generated_reviews"], "methods": list(methods)}
    grid |= {"measurements": ["memory"]}
    study = {"name": "own", "question": "?", "device": "cpu", "profile": [grid]}
    return Plan(study, project, "study.yaml")


def found(name: str, project: Path, **settings: object) -> Case:
    return Case(name, project=project, **settings)


# The promises of every method ---------------------------------------------------------------------


@own_entries
def test_it_starts_as_its_base(name: str, project: Path) -> None:
    conformance.check_start(found(name, project))


@own_entries
def test_training_moves_what_trains_and_nothing_else(name: str, project: Path) -> None:
    conformance.check_training(found(name, project))


@own_entries
def test_a_step_does_not_touch_gradients(name: str, project: Path) -> None:
    conformance.check_gradients_survive_a_step(found(name, project))


@own_entries
def test_merged_answers_as_unmerged(name: str, project: Path) -> None:
    conformance.check_merged(found(name, project))


@own_entries
def test_a_resumed_run_is_the_uninterrupted_one(name: str, project: Path) -> None:
    conformance.check_resumed(*(found(name, project) for _ in range(3)))


@own_entries
def test_state_is_its_formula(name: str, project: Path) -> None:
    conformance.check_state_formula(found(name, project))


@own_entries
def test_state_is_predicted_to_the_byte(name: str, project: Path) -> None:
    metrics = memory(conformance.request_of(name, "tiny", project=project))["metrics"]
    assert metrics["measured_optimizer_state_bytes"] == metrics["optimizer_state_bytes"]


def test_the_norms_train_and_nothing_else(project: Path) -> None:
    """DistilBERT has a norm after the embeddings and two a layer; the new head trains as well."""
    trainable = found("norms_only", project).trainable()
    norms = [name for name in trainable if "layernorm" in name.lower().replace("_", "")]
    assert len(norms) == (1 + 2 * 2) * 2
    assert {name.split(".")[-2] for name in set(trainable) - set(norms)} == {
        "pre_classifier",
        "classifier",
    }


# Planning, digests, the table ---------------------------------------------------------------------


def test_a_request_has_the_options_and_the_digests_of_both_files(project: Path) -> None:
    plan = plan_of(project, *OWN)
    requests = {cell.method: plan.request("memory", cell) for cell in plan.cells("memory")}
    assert requests["norms_only"]["method"]["options"] == {"biases": True}
    optimizer = requests["full_sign_sgd"]["method"]["optimizer"]
    assert optimizer == {"module": "sign_sgd", "momentum": 0.9}
    for name, file in (("norms_only", "methods/norms_only"), ("full_sign_sgd", "optim/sign_sgd")):
        module = f"rankwise.{file.replace('/', '.')}"
        digest = requests[name]["code"][module]
        assert digest == provenance.code_digest_now(project / f"{file}.py")
        assert provenance.source_file(module) == f"{file}.py"


def test_a_job_that_imports_bitsandbytes_in_an_own_file_is_seen(project: Path) -> None:
    def asks(module: str) -> bool:
        request = json.dumps({"code": {module: "digest"}})
        return worker_client.uses_bitsandbytes(["script.py", "--request", request])

    assert not asks("rankwise.methods.norms_only")
    file = project / "methods/norms_only.py"
    file.write_text("import bitsandbytes\n" + file.read_text())
    assert asks("rankwise.methods.norms_only")


def test_the_table_has_the_entries_and_says_what_is_broken(project: Path) -> None:
    """Files that break in different ways have rows with the reason, and hide no other row."""
    head = "from dataclasses import dataclass\nfrom rankwise.methods.parts.base import Method\n"
    body = "@dataclass(frozen=True)\nclass {}(Method):\n    pass\n"
    add(project, "bad_name", body.format("BadName"))
    add(project, "bad_class", head + body.format("Other"))
    add(project, "bad_import", head + "import nonsuch_package\n" + body.format("BadImport"))
    add(project, "bad_start", head + "int('x')\n" + body.format("BadStart"))
    rows = {row.entry: row for row in catalogue(project, "tiny", "generated_reviews", 4)}
    names = "a name that the file defines or imports"
    assert (
        rows["bad_name"].reason == f"methods/bad_name.py: line 1: got 'dataclass', allowed: {names}"
    )
    assert rows["bad_class"].reason.startswith(
        "methods/bad_class.py: classes: got 'Other', allowed: "
    )
    assert (
        "methods/bad_import.py: line 3: got 'import of nonsuch_package'"
        in rows["bad_import"].reason
    )
    expected = "invalid literal for int() with base 10: 'x'"
    assert rows["bad_start"].reason == (
        f"methods/bad_start.py: cannot be imported (ValueError: {expected})"
    )
    counts = {name: rows[name].trainable_parameters for name in ("lora", *OWN)}
    assert all(counts.values()), counts
    shipped = set(yaml.safe_load((ROOT / "config/methods.yaml").read_text()))
    assert shipped <= set(rows)


def test_a_broken_file_stops_only_the_studies_that_use_it(project: Path) -> None:
    add(project, "bad_name", "@dataclass\nclass BadName(Method):\n    pass\n")
    assert len(plan_of(project, "norms_only", "frozen").cells("memory")) == 2
    with pytest.raises(ConfigError, match=r"^methods/bad_name\.py: line 1: got 'dataclass'"):
        plan_of(project, "norms_only", "bad_name")


def test_a_file_that_fails_at_import_is_one_sentence(project: Path) -> None:
    (project / "methods/fails.py").write_text("raise RuntimeError('not today')\n")
    with pytest.raises(BrokenModule) as caught:
        method_class("fails")
    reason = "cannot be imported (RuntimeError: not today)"
    assert str(caught.value) == f"methods/fails.py: {reason}"


def test_a_name_that_rankwise_has_too_stops_only_its_own_studies(project: Path) -> None:
    text = (project / "methods/norms_only.py").read_text()
    (project / "methods/bitfit.py").write_text(text.replace("NormsOnly", "BitFit"))
    assert plan_of(project, "norms_only").cells("memory")
    with pytest.raises(ConfigError) as caught:
        plan_of(project, "bitfit")
    message = "file name: got 'bitfit', allowed: a name that no file of Rankwise has"
    assert str(caught.value) == f"methods/bitfit.py: {message}"


@pytest.mark.slow
def test_the_command_prints_both(project: Path) -> None:
    command = [sys.executable, "-m", "rankwise.cli.main", "methods"]
    command += ["--model", "tiny", "--dataset", "generated_reviews"]
    done = subprocess.run(command, cwd=project, env=CLEAN, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in OWN:
        assert name in done.stdout


def test_the_examples_are_complete() -> None:
    """Every file of the examples is used by an entry there or by a test, and each has a docstring."""
    entries = yaml.safe_load((EXAMPLES / "config/methods.yaml").read_text())
    assert set(entries) == set(OWN)
    used = {f"methods/{entry['module']}.py" for entry in entries.values()}
    used |= {f"optim/{e['optimizer']['module']}.py" for e in entries.values() if "optimizer" in e}
    used.add("tasks/graded.py")  # of tests/training/test_own_tasks.py
    used.add("metrics/weighted_accuracy_fraction.py")  # of tests/analysis/test_own_metrics.py
    files = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.glob("*/*.py")}
    assert files <= used
    for file in files:
        assert ast.get_docstring(ast.parse((EXAMPLES / file).read_text()))
