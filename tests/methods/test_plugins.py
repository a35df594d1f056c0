"""Methods and optimizers of installed packages, as docs/extend shows them, and plain torch optimizers."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from helpers import conformance
from helpers.doc_blocks import blocks
from helpers.installed_package import describe, install, install_example
from helpers.own_files import forget, forget_texts
from helpers.repository import CLEAN, ROOT, edit
from rankwise.checks import preflight
from rankwise.cli.main import main
from rankwise.core import provenance
from rankwise.core.config import ConfigError
from rankwise.core.errors import BrokenModule
from rankwise.core.provenance import SourceChanged
from rankwise.execution import worker_client
from rankwise.measure.flops.count import flops
from rankwise.measure.memory.ledger import ledger
from rankwise.measure.memory.persistent import memory
from rankwise.methods.parts.base import method_class, optimizer_class
from rankwise.methods.parts.optimizers import optimizer_over
from rankwise.study.jobs import result_jobs
from rankwise.study.plan import Plan

LION = "lion_pack.lion:Lion"
STEPPING = """
import torch

class Stepping(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad, alpha=group["lr"])
"""


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


def entries_of_the_docs() -> dict:
    """The entries that docs/extend shows with a class of a package."""
    texts = [
        block.text
        for block in blocks("yaml")
        if "extend" in block.page and re.search(r'module: "\w+\.\w+:', block.text)
    ]
    return yaml.safe_load("".join(texts))


def add(name: str, **entry: object) -> None:
    """Add an entry to the project in which the test runs."""
    file = Path("config/methods.yaml")
    entries = yaml.safe_load(file.read_text())
    entries[name] = {"module": "full", "learning_rate": 1e-3, **entry}
    file.write_text(yaml.safe_dump(entries))


def request_of(name: str, measurement: str = "memory", model: str = "tiny") -> dict:
    grid = {
        "models": [model],
        "datasets": [conformance.TASKS[model][0]],
        "methods": [name],
        "ranks": [4],
        "batch_size": 2,
        "sequence_length_tokens": 12,
        "measurements": [measurement],
    }
    study = {"name": "own", "question": "?", "device": "cpu", "profile": [grid]}
    plan = Plan(study, Path.cwd(), "study.yaml")
    return plan.request(measurement, plan.cells(measurement)[0])


def sources(request: dict) -> dict[str, str]:
    return {
        name: d for name, d in request["code"].items() if not name.startswith(("rankwise", "w"))
    }


# What a request holds -----------------------------------------------------------------------------


def test_the_docs_show_the_entries() -> None:
    assert set(entries_of_the_docs()) == {"full_lion", "lora_muon", "first_norms"}


def test_a_request_has_the_options_and_the_sources_that_imports_reach(site: Path) -> None:
    request = request_of("full_lion")
    assert request["method"]["optimizer"] == {
        "module": LION,
        "betas": [0.9, 0.99],
        "weight_decay": 0.01,
    }
    assert sources(request) == {
        **{
            module: provenance.code_digest_now(site / f"lion_pack/{file}.py")
            for module, file in [
                ("lion_pack", "__init__"),
                ("lion_pack.lion", "lion"),
                ("lion_pack.mixing", "mixing"),
            ]
        },
        "package lion-pack": "1.0",
    }
    assert provenance.source_file("lion_pack.lion") == "lion_pack/lion.py"
    assert "lion_pack.first_layers" in request_of("first_norms")["code"]


def test_torchs_optimizers_are_covered_by_the_lock(site: Path) -> None:
    assert sources(request_of("lora_muon")) == {}


def test_the_request_is_the_same_where_torch_is_absent(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a login node; an optimizer whose arguments only torch knows is refused there."""
    expected = request_of("full_lion")
    monkeypatch.setitem(sys.modules, "torch", None)
    forget()
    assert request_of("full_lion") == expected
    text = STEPPING.replace("lr=0.1)", "lr=0.1, **others)")
    install(site, "plug", "1.0", fast=text)
    add("plugged", optimizer={"module": "plug.fast:Stepping"})
    forget()
    with pytest.raises(ConfigError) as caught:
        request_of("plugged")
    assert str(caught.value) == (
        "plug/fast.py: Stepping.__init__: got '**others', allowed: arguments by name, or torch "
        "installed where the study is planned"
    )


def test_an_edit_that_could_change_a_result_changes_the_request(site: Path) -> None:
    before = request_of("full_lion")
    edit(site / "lion_pack/mixing.py", "Running means.", "Means that run.")
    edit(site / "lion_pack/first_layers.py", "layers: int = 1", "layers: int = 2")
    forget_texts()
    assert request_of("full_lion") == before
    edit(site / "lion_pack/mixing.py", "1 - share_of_old", "1.0 - share_of_old")
    forget_texts()
    assert request_of("full_lion") != before


def test_other_packages_have_their_version_or_else_their_sources(site: Path) -> None:
    """What they require counts as well; what the lock has does not."""
    install(site, "far-maths", "3.1")
    install(site, "near-maths", "2.0", requires=("far-maths>=3", "numpy", "nonsuch; extra == 'x'"))
    (site / "loose.py").write_text("import loose_too\n")
    (site / "loose_too.py").write_text("")
    text = "import numpy\nimport near_maths\nfrom . import other\n\ndef f():\n    import loose\n"
    install(site, "plug", "1.0", fast=text + STEPPING, other="", unused="")
    add("plugged", optimizer={"module": "plug.fast:Stepping"})
    forget()
    found = sources(request_of("plugged"))
    assert {name: v for name, v in found.items() if name.startswith("package ")} == {
        "package far-maths": "3.1",
        "package near-maths": "2.0",
        "package plug": "1.0",
    }
    assert {name for name in found if not name.startswith("package ")} == {
        *("plug", "plug.fast", "plug.other"),
        *("loose", "loose_too"),
    }


def test_a_compiled_module_counts_by_its_bytes_and_its_packages_list_of_files(site: Path) -> None:
    install(site, "plug", "1.0", fast="from . import kernel\n" + STEPPING)
    compiled = site / "plug" / ("kernel" + importlib.machinery.EXTENSION_SUFFIXES[0])
    compiled.write_bytes(b"not text \xff")
    describe(site, "plug", "1.0", "plug")
    add("plugged", optimizer={"module": "plug.fast:Stepping"})
    forget()
    found = sources(request_of("plugged"))
    assert found["plug.kernel"] == provenance.file_sha256(compiled)[:16]
    version, _, files = found["package plug"].partition(" ")
    assert version == "1.0"
    record = site / "plug-1.0.dist-info/RECORD"
    assert files == provenance.file_sha256(record)[:16]


def test_a_job_refuses_other_sources_and_versions(site: Path) -> None:
    code = request_of("full_lion")["code"]
    script = ROOT / "workflow_scripts/memory.py"
    ours = {name: d for name, d in code.items() if not name.startswith("rankwise")}
    loaded = {name: "" for name in sys.modules if name.startswith("rankwise")}
    # This process has loaded more of Rankwise than a job does; that is tests/core/test_provenance.py.
    every = {name: provenance.code_digest_now(Path(sys.modules[name].__file__)) for name in loaded}
    for name in loaded:
        for data, file in provenance.data_files(name).items():
            every[data] = provenance.digest(file.read_text())
    code = {**every, **ours, f"workflow_scripts/{script.name}": provenance.code_digest(script)}
    optimizer_class(LION)
    provenance.verify(code, script)
    method_class("lion_pack.first_layers:FirstNorms")
    with pytest.raises(SourceChanged, match=r"first_layers\.py: loaded, but not declared"):
        provenance.verify(code, script)
    del sys.modules["lion_pack.first_layers"]
    describe(site, "lion-pack", "1.1", "lion_pack")
    with pytest.raises(SourceChanged, match=r"package lion-pack: version 1\.1, planned with 1\.0"):
        provenance.verify(code, script)
    describe(site, "lion-pack", "1.0", "lion_pack")
    edit(site / "lion_pack/mixing.py", "1 - share_of_old", "1.0 - share_of_old")
    with pytest.raises(SourceChanged, match=r"mixing\.py: changed since"):
        provenance.verify(code, script)


def test_a_job_with_a_class_of_bitsandbytes_may_import_it(site: Path) -> None:
    for module, may in (("bitsandbytes.optim:Lion8bit", True), ("torch.optim:SGD", False)):
        request = json.dumps({"code": {}, "method": {"optimizer": {"module": module}}})
        assert worker_client.uses_bitsandbytes(["x.py", "--request", request]) is may


# What they compute --------------------------------------------------------------------------------


def test_lion_steps_as_its_paper_says(site: Path) -> None:
    """Chen et al. 2023, algorithm 2, by hand: c = 0.1 g, m = 0.01 g; then c = 0.9 m + 0.1 g."""
    weight = nn.Parameter(torch.tensor([[1.0, -2.0]]))
    entry = {"optimizer": {"module": LION, "betas": [0.9, 0.99], "weight_decay": 0.1}}
    optimizer = optimizer_over(
        optimizer_class(LION), {**entry, "learning_rate": 0.5}, [{"params": [weight], "lr": 0.5}], 0
    )
    weight.grad = torch.tensor([[2.0, -4.0]])
    optimizer.step()
    # W (1 - 0.5 * 0.1) - 0.5 sign(c) = [0.95 - 0.5, -1.9 + 0.5]
    assert weight.tolist() == [pytest.approx([0.45, -1.4])]
    assert optimizer.state[weight]["momentum"].tolist() == [pytest.approx([0.02, -0.04])]
    weight.grad = torch.tensor([[-0.1, 1.0]])
    optimizer.step()
    # c = 0.9 [0.02, -0.04] + 0.1 [-0.1, 1] = [0.008, 0.064]: both rise, so both weights fall.
    assert weight.tolist() == [pytest.approx([0.45 * 0.95 - 0.5, -1.4 * 0.95 - 0.5])]


@pytest.mark.parametrize(
    ("options", "bytes_a_number", "bytes_a_tensor"),
    [
        ({"module": "torch.optim:SGD"}, 0, 0),
        ({"module": "torch.optim:SGD", "momentum": 0.9}, 4, 0),
        ({"module": "torch.optim:Adagrad"}, 4, 4),  # sum of squares; the step, a number of its own
        ({"module": "torch.optim:Adam", "foreach": True}, 8, 4),
        ({"module": "torch.optim:Adam", "fused": True}, 8, 4),
        ({"module": LION}, 4, 0),
    ],
)
def test_state_is_predicted_and_measured(
    options: dict, bytes_a_number: int, bytes_a_tensor: int, site: Path
) -> None:
    add("plain", optimizer=options)
    request = request_of("plain")
    metrics = memory(request)["metrics"]
    case = conformance.cases.Case(request)
    tensors = len(case.trainable())
    expected = bytes_a_number * metrics["trainable_parameters"] + bytes_a_tensor * tensors
    assert metrics["optimizer_state_bytes"] == expected
    assert metrics["measured_optimizer_state_bytes"] == expected
    assert ("note" in metrics) == ("fused" in options)  # fused kernels have no meta form


def test_muon_of_torch_trains_the_factors_of_lora(site: Path) -> None:
    """One momentum of every number; a language model's LoRA has matrices alone."""
    metrics = memory(request_of("lora_muon", model="stories260k"))["metrics"]
    assert metrics["optimizer_state_bytes"] == 4 * metrics["trainable_parameters"]
    assert metrics["measured_optimizer_state_bytes"] == metrics["optimizer_state_bytes"]


LOOKING = STEPPING.replace(
    'p.sub_(p.grad, alpha=group["lr"])',
    'self.state[p]["rows"] = [torch.zeros(len(p))] * 1\n                '
    'p.sub_(p.grad, alpha=group["lr"] / max(1.0, p.grad.norm().tolist()))',
)


def test_a_step_that_looks_at_values_is_counted_on_the_cpu_and_its_peak_is_not_predicted(
    site: Path,
) -> None:
    install(site, "plug", "1.0", looking=LOOKING)
    add("looking", module="head_only", optimizer={"module": "plug.looking:Stepping"})
    forget()
    metrics = memory(request_of("looking"))["metrics"]
    # The head of `tiny`: a layer of 64 and one of 2 outputs, each with a bias.
    assert metrics["optimizer_state_bytes"] == 4 * (64 + 64 + 2 + 2)
    assert metrics["measured_optimizer_state_bytes"] == metrics["optimizer_state_bytes"]
    cannot = "cannot step on torch's meta device (NotImplementedError: "
    assert metrics["note"].startswith(
        f"optimizer state counted on the CPU: plug.looking:Stepping {cannot}"
    )
    result = ledger(request_of("looking", "ledger"))
    assert result["status"] == "unsupported"
    assert result["reason"].startswith(f"plug.looking:Stepping: {cannot}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "LBFGS",
            "its step needs closure, to compute the loss again within a step; training computes one "
            "gradient a step",
        ),
        (
            "SparseAdam",
            "cannot step: RuntimeError: SparseAdam does not support dense gradients, please "
            "consider Adam instead",
        ),
        (
            "Muon",
            "ValueError: Muon only supports 2D parameters whereas we found a parameter with size: "
            "torch.Size([64])",
        ),
    ],
)
def test_what_an_optimizer_cannot_do_is_unsupported(name: str, reason: str, site: Path) -> None:
    add("plain", optimizer={"module": f"torch.optim:{name}"})
    expected = {"status": "unsupported", "reason": f"torch.optim:{name}: {reason}"}
    for measure, measurement in ((memory, "memory"), (flops, "flops"), (ledger, "ledger")):
        assert measure(request_of("plain", measurement)) == expected


def test_an_option_that_the_optimizer_refuses_is_one_sentence(site: Path) -> None:
    add("plain", optimizer={"module": "torch.optim:SGD", "momentum": -1})
    with pytest.raises(ValueError, match=r"^torch\.optim:SGD: ValueError: Invalid momentum value"):
        memory(request_of("plain"))


def test_an_optimizer_that_refuses_a_rate_of_zero_can_be_profiled(site: Path) -> None:
    careful = STEPPING.replace("super()", "assert lr > 0.0\n        super()")
    install(site, "plug", "1.0", careful=careful)
    add("careful", optimizer={"module": "plug.careful:Stepping"})
    forget()
    assert memory(request_of("careful"))["metrics"]["optimizer_state_bytes"] == 0


# Mistakes, before any job -------------------------------------------------------------------------

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


# rankwise test method -----------------------------------------------------------------------------


def verdicts_of(name: str, capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, dict]:
    status = main(["test", "method", name, "--json", *arguments])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["full_lion", "first_norms"])
def test_the_packages_of_the_docs_keep_every_promise(
    name: str, site: Path, capsys: pytest.CaptureFixture
) -> None:
    status, answer = verdicts_of(name, capsys)
    assert status == 0
    assert answer["status"] == "ok"
    made = {p["promise"] for p in answer["promises"] if p["verdict"] == "yes"}
    assert {
        "starts as its base",
        "training lowers the loss and moves only what trains",
        "a resumed run is the uninterrupted one to the bit",
        "weights and state are predicted to the byte",
    } <= made


LEAKING = """
from dataclasses import dataclass

from rankwise.methods.parts.base import Method, train_only


@dataclass(frozen=True)
class Leaking(Method):
    TRAINABLE = "m"

    def prepare(self, model, names):
        train_only(model, tuple(names["new_head"]))
        return model

    def after_step(self, model, optimizer, step):
        for name, param in model.named_parameters():
            if name.endswith("position_embeddings.weight"):
                param.data.add_(1.0)
"""


def test_a_broken_promise_is_said_and_the_others_are_still_checked(
    site: Path, capsys: pytest.CaptureFixture
) -> None:
    install(site, "plug", "1.0", leaking=LEAKING)
    add("leaking", module="plug.leaking:Leaking")
    forget()
    assert main(["test", "method", "leaking"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "leaking on tiny:"
    assert (
        "  training lowers the loss and moves only what trains: no: frozen parameters move: "
        "distilbert.embeddings.position_embeddings.weight"
    ) in lines
    declared = next(line for line in lines if "declares" in line)
    # The head alone trains, and `targets`, over which TRAINABLE is summed, are none.
    assert declared == "  trains the numbers that it declares: yes"
    assert "  starts as its base: yes" in lines


def test_an_entry_that_cannot_train_the_model_is_unsupported(
    site: Path, capsys: pytest.CaptureFixture
) -> None:
    status, answer = verdicts_of("lora_muon", capsys)
    assert status == 1
    assert answer["status"] == "unsupported"
    assert answer["reason"].startswith("torch.optim:Muon: ValueError: Muon only supports 2D")
    assert main(["test", "method", "lora_moun"]) == 1
    message = "rankwise: config/methods.yaml: entry: got 'lora_moun', allowed: "
    assert capsys.readouterr().err.startswith(message)


# A job --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_job_runs_with_the_package_and_verifies_it(site: Path, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(json.dumps(request_of("full_lion")))
    output = tmp_path / "memory.json"
    script = ROOT / "workflow_scripts/memory.py"
    command = [sys.executable, str(script), "--request", f"@{request}", "--output", str(output)]
    environment = {
        **CLEAN,
        "PYTHONPATH": f"{ROOT / 'src'}:{site}",
        "RANKWISE_ENVIRONMENT": "recorded",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(output.read_text())["metrics"]
    assert metrics["optimizer_state_bytes"] == 4 * metrics["trainable_parameters"]
    edit(site / "lion_pack/mixing.py", "1 - share_of_old", "1.0 - share_of_old")
    refused = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "lion_pack/mixing.py: changed since the workflow was planned" in refused.stderr
