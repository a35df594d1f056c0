"""What is wrong with a class of a package is said in a sentence, before any job."""

from pathlib import Path

import pytest

from helpers.installed_package import install
from helpers.own_files import forget
from helpers.plugged import LION, STEPPING, add, request_of
from rankwise.checks import preflight
from rankwise.core.config import ConfigError
from rankwise.core.errors import BrokenModule
from rankwise.methods.parts.base import optimizer_class
from rankwise.study.jobs import result_jobs
from rankwise.study.plan import Plan

NO_STEP = STEPPING.replace("def step", "def move")
NO_RATE = STEPPING.replace("lr=0.1", "rate=0.1").replace('{"lr": lr}', "{}")
BASE = "allowed: a subclass of {}"


@pytest.mark.parametrize(
    ("text", "module", "message"),
    [
        (STEPPING, "plug.fast:", "config/methods.yaml: plugged.optimizer.module: got 'plug.fast:', "
         "allowed: a file's name, or package.module:Class of an installed package"),
        (STEPPING, "nonsuch.fast:Stepping", "config/methods.yaml: plugged.optimizer.module: got "
         "'nonsuch.fast:Stepping', allowed: a class of a package that is installed here: nonsuch is not (pip install)"),
        (STEPPING, "plug.slow:Stepping", "config/methods.yaml: plugged.optimizer.module: got "
         "'plug.slow:Stepping', allowed: a class of a module of plug: plug.slow is none"),
        (STEPPING, "plug.fast:Steping", "config/methods.yaml: plugged.optimizer.module: got 'plug.fast:Steping', "
         "allowed: plug.fast:Stepping (nearest: 'plug.fast:Stepping')"),
        (NO_STEP, "plug.fast:Stepping", "plug/fast.py: class Stepping: got 'no step', allowed: a method step, which "
         "updates the parameters with their gradients"),
        (NO_RATE, "plug.fast:Stepping", "plug/fast.py: Stepping.__init__: got 'params, rate', allowed: an argument lr "
         "among them"),
        ("class Stepping:\n    pass\n", "plug.fast:Stepping", "plug/fast.py: class Stepping: got 'no base class', "
         + BASE.format("torch.optim.Optimizer")),
        ("import nonsuch\n" + STEPPING, "plug.fast:Stepping", "plug/fast.py: line 1: got 'import of nonsuch', allowed: "
         "packages that are installed here"),
        ("from . import gone\nfrom .lost import x\n" + STEPPING, "plug.fast:Stepping", "plug/fast.py: line 2: got "
         "'import of plug.lost', allowed: modules of plug"),
        ("def (:\n", "plug.fast:Stepping", "plug/fast.py: line 1: got 'invalid syntax', allowed: valid Python"),
    ],
)  # fmt: skip
def test_a_broken_optimizer_is_one_sentence(
    text: str, module: str, message: str, site: Path
) -> None:
    install(site, "plug", "1.0", fast=text)
    add("plugged", optimizer={"module": module})
    forget()
    with pytest.raises(ConfigError) as caught:
        request_of("plugged")
    assert str(caught.value) == message


def test_a_method_must_be_one(site: Path) -> None:
    add("plugged", module=LION)
    with pytest.raises(ConfigError) as caught:
        request_of("plugged")
    allowed = BASE.format("rankwise.methods.parts.base.Method")
    assert str(caught.value) == (
        f"lion_pack/lion.py: class Lion: got 'torch.optim.Optimizer', {allowed}"
    )


def test_an_own_file_is_held_to_the_same(site: Path) -> None:
    Path("optim").mkdir()
    Path("optim/stepping.py").write_text(NO_STEP)
    add("plugged", optimizer={"module": "stepping"})
    forget()
    with pytest.raises(ConfigError, match=r"^optim/stepping\.py: class Stepping: got 'no step'"):
        request_of("plugged")


def test_a_package_that_fails_at_import_is_one_sentence(site: Path) -> None:
    install(site, "plug", "1.0", fast="raise RuntimeError('not today')\n")
    with pytest.raises(BrokenModule) as caught:
        optimizer_class("plug.fast:Stepping")
    reason = "cannot be imported (RuntimeError: not today)"
    assert str(caught.value) == f"plug.fast:Stepping: {reason}"


@pytest.mark.slow
def test_before_any_job_it_is_said_once_which_classes_cannot_be_imported(site: Path) -> None:
    """An own file, which is on the path of jobs whatever the test's path is."""
    Path("optim").mkdir()
    Path("optim/stepping.py").write_text(STEPPING + "\nprint('loaded')\nint('x')\n")
    add("broken", optimizer={"module": "stepping"})
    forget()
    grid = {"models": ["tiny"], "datasets": ["generated_reviews"]}
    grid |= {"methods": ["broken", "full"], "measurements": ["memory", "flops"]}
    study = {"name": "own", "question": "?", "device": "cpu", "profile": [grid]}
    plan = Plan(study, Path.cwd(), "study.yaml")
    said = preflight.lacking("packages", result_jobs(plan), plan)
    expected = "invalid literal for int() with base 10: 'x'"
    assert f"optim/stepping.py: cannot be imported (ValueError: {expected})" in said
    assert sum("cannot be imported" in line for line in said) == 1
