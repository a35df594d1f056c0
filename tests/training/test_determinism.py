"""Deterministic kernels where a study asks for them, and real results of two kinds of CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.merging import own_store, small_project
from helpers.prepared import prepare
from helpers.repository import CLEAN, ROOT
from helpers.stored import store_result
from rankwise.audit.store_collect import collect
from rankwise.core.errors import Unsupported
from rankwise.core.kernels import kernels
from rankwise.core.store import StoreError
from rankwise.study.plan import Plan

STUDY = {
    "name": "kinds",
    "question": "?",
    "device": "cpu",
    "deterministic": True,
    "schedule": {"updates": 8, "batch_size": 16, "eval_batch_size": 100},
    "train": [
        {"models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["full"], "seeds": [0]}
    ],
}
MODULE = "rankwise.training.determinism"


def test_only_requests_of_such_a_study_ask_for_deterministic_kernels() -> None:
    """At its default the option is in no request, and no job depends on its module."""
    requests = []
    for study in (STUDY, {**STUDY, "deterministic": False}):
        plan = Plan(study, ROOT)
        (cell,) = plan.cells("train")
        requests.append(plan.request("train", cell))
    asked, other = requests
    assert asked.pop("deterministic") is True
    assert asked["code"].pop(MODULE)
    assert asked == other


def test_only_timed_profiles_of_such_a_study_follow() -> None:
    """What counts shapes or bytes does not depend on the option."""
    grid = {"models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["full"]}
    grid["measurements"] = ["forward", "throughput", "memory", "flops", "ledger", "fits"]
    study = {key: STUDY[key] for key in ("name", "question", "device")}
    plans = [Plan({**study, "deterministic": on, "profile": [grid]}, ROOT) for on in (True, False)]
    for measurement in grid["measurements"]:
        asked, other = (plan.request(measurement, plan.cells(measurement)[0]) for plan in plans)
        if measurement in ("forward", "throughput"):
            assert asked.pop("deterministic") is True
            assert asked["code"].pop(MODULE)
            asked["code"].pop("rankwise.training")  # the package of that module
        assert asked == other


def test_deterministic_kernels_end_with_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with kernels({}):
        assert not torch.are_deterministic_algorithms_enabled()
    with kernels({"deterministic": True}):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.benchmark


def test_an_operation_without_a_deterministic_kernel_is_named() -> None:
    indices, values = torch.tensor([0]), torch.tensor([1.0])
    message = r"deterministic: got true, but .* of put_.* allowed: deterministic: false"
    with pytest.raises(Unsupported, match=message), kernels({"deterministic": True}):
        torch.zeros(2).put_(indices, values, accumulate=False)
    with pytest.raises(RuntimeError, match="shape"), kernels({"deterministic": True}):
        torch.zeros(2) @ torch.zeros(3, 3)  # any other error stays what it is


# Two kinds of CPU ----------------------------------------------------------------------------------

TRAIN = """
import json, sys
from pathlib import Path
from rankwise.core import environment
from rankwise.training.run import train
request = json.loads(Path("request.json").read_text())
result = train(request)
result["environment"] = environment.environment(Path(sys.argv[1]))
Path(sys.argv[2]).write_text(json.dumps(result))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict[str, dict]]:
    """A request, and its results with torch's kernels for two instruction sets."""
    root, plan = tmp_path_factory.mktemp("inputs"), Plan(STUDY, ROOT)
    prepare(
        plan, root, review_rows={"train": 200, "validation": 50}, selection_rows=100, updates=10
    )
    (cell,) = plan.cells("train")
    request = plan.request("train", cell)
    (root / "request.json").write_text(json.dumps(request))
    results = {}
    for capability in ("default", "avx2"):
        output = root / f"{capability}.json"
        subprocess.run(
            [sys.executable, "-c", TRAIN, ROOT / "envs/cpu.lock", output],
            env={**CLEAN, "ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "1"},
            cwd=root,
            check=True,
        )
        result = json.loads(output.read_text())
        results[result["environment"]["cpu_capability"]] = result
    if len(results) == 1:
        pytest.skip("this processor has one kind of kernels")
    return request, results


def project(folder: Path, request: dict, result: dict) -> Path:
    """A project whose store has the result."""
    root = small_project(folder)
    content = {key: value for key, value in result.items() if key != "environment"}
    store_result(root, request, lambda _: content, result["environment"])
    return root


@pytest.fixture
def _own_store_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Projects have the store in their own folder."""
    monkeypatch.delenv("RANKWISE_STORE", raising=False)


@pytest.mark.slow
@pytest.mark.usefixtures("_own_store_only")
def test_collect_takes_results_of_two_kinds_of_cpu_for_one(trained: tuple, tmp_path: Path) -> None:
    """Their last digits differ, and so they agree; a thousandth more, and they do not."""
    request, results = trained
    assert set(results) == {"DEFAULT", "AVX2"}
    metrics = {kind: result["metrics"] for kind, result in results.items()}
    assert metrics["DEFAULT"]["eval_loss_nats"] != metrics["AVX2"]["eval_loss_nats"]
    here = project(tmp_path / "here", request, results["DEFAULT"])
    there = project(tmp_path / "there", request, results["AVX2"])
    (found,) = collect([str(there)], here)["folders"]
    assert (len(found["same"]), found["added"]) == (1, [])
    (note,) = found["notes"]
    assert "differs as two kinds of CPU may, and the first one stays: metrics." in note
    assert len(list(own_store(here).rglob("train.json"))) == 1

    loss = metrics["AVX2"]["eval_loss_nats"]
    worse = {**results["AVX2"], "metrics": {**metrics["AVX2"], "eval_loss_nats": loss * 1.002}}
    third = project(tmp_path / "third", request, worse)
    with pytest.raises(StoreError) as refused:
        collect([str(third)], here)
    words = str(refused.value)
    assert "metrics.eval_loss_nats: got " in words
    assert "(a relative difference of 0.002, allowed between two CPUs: 0.001)" in words
    assert "AVX2" in words
    assert "DEFAULT" in words


@pytest.mark.slow
@pytest.mark.usefixtures("_own_store_only")
def test_the_same_kind_must_be_the_same_to_the_byte(trained: tuple, tmp_path: Path) -> None:
    request, results = trained
    environment = results["AVX2"]["environment"]
    here = project(tmp_path / "here", request, {**results["DEFAULT"], "environment": environment})
    there = project(tmp_path / "there", request, results["AVX2"])
    with pytest.raises(StoreError, match=r"metrics\.\w+: got "):
        collect([str(there)], here)
