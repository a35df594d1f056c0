"""`rankwise doctor` on GPUs and drivers, and on programs that hang."""

from pathlib import Path

import pytest
import yaml

from helpers.doctoring import GIB, OFFLINE, PAPER, facts_of, said
from helpers.programs import HANG
from helpers.repository import ROOT
from helpers.stored import store_result
from rankwise.audit.rerun_plan import study_jobs
from rankwise.checks import doctor, machine, missing
from rankwise.core import probe
from rankwise.study.jobs import cell_jobs
from rankwise.study.plan import Plan

SMI = """case "$1" in
--query-gpu=driver_version) echo {driver};;
--query-gpu=uuid,compute_cap) echo "GPU-aa-1, {first}"; echo "GPU-bb-2, 9.0";;
--query-gpu=uuid,name,memory.total) echo "GPU-aa-1, Tesla T4, 15360"; echo "GPU-bb-2, NVIDIA H100, 81559";;
--query-gpu=uuid,memory.used) echo "GPU-aa-1, 0"; echo "GPU-bb-2, 4096";;
esac"""
PEAK = 30 * GIB


@pytest.fixture
def predicted(clone: Path) -> Path:
    """A clone in which the trainings of the paper study are predicted: each needs 30 GiB."""
    paper = Plan(yaml.safe_load((clone / PAPER).read_text()), clone, PAPER)
    metrics = {"peak_bytes": PEAK, "updates": 1000, "update_flops": 1e12}
    for job in cell_jobs(paper, "predict"):
        store_result(clone, job.request, lambda _: {"metrics": metrics})
    return clone


def test_a_card_too_small_is_named_with_what_is_needed(
    predicted: Path, tools, tmp_path: Path
) -> None:
    path = tools(nvidia_smi=SMI.format(driver="580.65.06", first="7.5"))
    found = facts_of(
        predicted, PAPER, 1, PATH=path, RANKWISE_LEASES=str(tmp_path / "leases"), **OFFLINE
    )
    small = next(one for one in found["missing"] if "Tesla T4" in one["what"])
    assert small["what"].startswith(
        "GPU-aa-1: Tesla T4: got '15.0 GiB', allowed: at least 30.6 GiB, the predicted peak of train "
    )
    assert small["do"] == "keep to the others: CUDA_VISIBLE_DEVICES=GPU-bb-2"
    assert found["needs"]["trainings_not_predicted"] == 0
    assert found["needs"]["gpu_hours"] > 0
    assert "NVIDIA H100, 79.6 GiB): others have 4.0 GiB there" in "\n".join(found["notes"])
    kept = facts_of(
        predicted, PAPER, int(found["machine"]["torch"]["cuda"] is None), PATH=path, CUDA_VISIBLE_DEVICES="GPU-bb-2",
        RANKWISE_LEASES=str(tmp_path / "leases"), **OFFLINE,
    )  # fmt: skip
    assert "Tesla" not in said(kept)


@pytest.mark.parametrize(("driver", "first", "sentence"), [
    ("580.65.06", "7.5", None),
    ("570.12", "7.5", "nvidia-smi: driver: got '570.12', allowed: at least 580, for CUDA 13.0"),
    ("580.65.06", "6.1", "GPU-aa-1 (Tesla T4, 15.0 GiB): compute capability: got 6.1, allowed: at least 7.5, for CUDA 13.0"),
])  # fmt: skip
def test_a_driver_or_a_card_too_old_for_torchs_cuda(
    driver, first, sentence, tools, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("PATH", tools(nvidia_smi=SMI.format(driver=driver, first=first)))
    monkeypatch.setenv("RANKWISE_LEASES", str(tmp_path / "leases"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    facts = machine.look(ROOT)
    plan = Plan(yaml.safe_load((ROOT / PAPER).read_text()), ROOT, PAPER)
    needs = doctor.needed(plan, known := list(study_jobs(plan).values()), known)
    facts["torch"] = {"version": "2.13.0", "cuda": "13.0"}
    found = [one["what"] for one in missing.missing(plan, [], facts, needs) if one["here"]]
    assert found == ([sentence] if sentence else [])
    facts["torch"] = {"version": "2.13.0+cpu", "cuda": None}
    found = [one["what"] for one in missing.missing(plan, [], facts, needs) if one["here"]]
    allowed = f"a build with CUDA, for {needs['gpu_jobs']} jobs take a GPU"
    assert found[0] == f"envs/gpu.lock: torch: got '2.13.0+cpu', allowed: {allowed}"


def test_a_wrong_variable_is_the_reason(tools) -> None:
    path = tools(nvidia_smi=SMI.format(driver="580.65.06", first="7.5"))
    found = facts_of(ROOT, PAPER, 1, PATH=path, CUDA_VISIBLE_DEVICES="7", **OFFLINE)
    assert (
        "environment: CUDA_VISIBLE_DEVICES: got '7', allowed: 0 or GPU-aa-1, 1 or GPU-bb-2"
        in said(found)
    )


def test_what_hangs_is_said_to_and_nothing_waits_for_it(tools, monkeypatch) -> None:
    names = (
        "docker",
        "podman",
        "buildah",
        "apptainer",
        "singularity",
        "sinfo",
        "kubectl",
        "nvidia_smi",
    )
    path = tools(**dict.fromkeys(names, HANG))
    monkeypatch.setitem(probe.run.__kwdefaults__, "seconds", 2)
    found = facts_of(ROOT, PAPER, 1, PATH=path, **OFFLINE)
    silent = "gives no answer in 2 s"
    assert {one["trouble"] for one in found["machine"]["engines"].values()} == {silent}
    for fact, program in {"cards": "nvidia-smi", "slurm": "sinfo", "kubernetes": "kubectl"}.items():
        assert found["machine"][fact]["trouble"] == f"{program} {silent}"
    gpu = next(one for one in found["missing"] if "NVIDIA" in one["what"])
    assert gpu["do"].startswith(
        f"mend the driver first, if there is a GPU: nvidia-smi {silent}; else run it on a machine"
    )
