"""What a request holds of classes of installed packages, and how a job verifies it."""

import importlib.machinery
import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.installed_package import describe, install
from helpers.own_files import forget, forget_texts
from helpers.plugged import LION, STEPPING, add, entries_of_the_docs, request_of
from helpers.repository import CLEAN, ROOT, edit
from rankwise.core import provenance
from rankwise.core.config import ConfigError
from rankwise.core.provenance import SourceChanged
from rankwise.execution import worker_client
from rankwise.methods.parts.base import method_class, optimizer_class


def sources(request: dict) -> dict[str, str]:
    return {
        name: d for name, d in request["code"].items() if not name.startswith(("rankwise", "w"))
    }


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
