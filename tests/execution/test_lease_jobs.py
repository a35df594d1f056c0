"""A job has its GPU before it starts and until its last process is gone; Snakemake knows the limit."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers.repository import CLEAN, ROOT, copy_repository, edit, run_snakemake
from helpers.simulated_gpus import simulate
from helpers.stored import made
from rankwise.analysis import tidy
from rankwise.analysis.costs import costs
from rankwise.core import provenance, result
from rankwise.core.lock import lock_digest

NO_CODE = json.dumps({"code": {}})

# A job that prints its GPUs, whether they are shared, the size of its share, and its server.
PRINT_LEASE = """
import json, os, sys, time
lease = json.loads(os.environ["RANKWISE_CARD"])
gpus = os.environ["CUDA_VISIBLE_DEVICES"]
print(gpus, lease["shared"], lease.get("share_bytes"), os.getppid(), flush=True)
"""


def environment(folder: Path, *sizes_gib: float, **changes: str) -> dict[str, str]:
    """Simulated GPUs, and a folder of leases and a server of this test's own."""
    own = {"PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(folder)}
    return {**CLEAN, **own, **simulate(folder, *sizes_gib), **changes}


def command(folder: Path, script: str, *resources: str, request: str = NO_CODE) -> list[str]:
    """The command of a job that runs this script with these resources."""
    file = folder / f"script{len(list(folder.glob('script*')))}.py"
    file.write_text(script)
    client = [sys.executable, "-m", "rankwise.execution.worker_client"]
    name = str(file.with_suffix(""))  # the client adds `.py`
    return [*client, *resources, name, "--request", request]


def run(job: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(job, env=variables, capture_output=True, text=True, check=False)


# One job -------------------------------------------------------------------------------------------


def test_jobs_of_one_server_see_their_own_gpus(tmp_path: Path) -> None:
    """The same server runs jobs with whole GPUs, with shares and with none."""
    variables = environment(tmp_path, 8, 24)
    first = subprocess.Popen(
        command(tmp_path, PRINT_LEASE + "sys.stdin.read()", "--gpu", "1", "--gpu-memory-gib", "0"),
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    *lease, server = first.stdout.readline().split()
    assert lease == ["SIM-0", "False", "None"]

    share = ("--gpu", "0", "--gpu-memory-gib", "1.5")
    second = run(command(tmp_path, PRINT_LEASE, *share), variables)
    assert second.stdout.split() == ["SIM-1", "True", str(3 * 2**29), server]
    assert second.stderr == "rankwise: runs on 1.50 GiB of a GPU: SIM-1 (simulated, 24.0 GiB)\n"

    script = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'), os.getppid())"
    none = ("--gpu", "0", "--gpu-memory-gib", "0")
    third = run(command(tmp_path, script, *none), variables)
    assert third.stdout.split() == ["None", server]

    first.communicate("end")
    assert first.returncode == 0
    assert not list((tmp_path / "leases").glob("*.job"))


def test_a_gpu_is_free_when_the_job_is_gone_and_not_when_its_client_is(tmp_path: Path) -> None:
    """The client is killed while the server, which would kill the job, is stopped."""
    variables = environment(tmp_path, 8)
    client = subprocess.Popen(
        command(tmp_path, PRINT_LEASE + "time.sleep(600)", "--gpu", "1"),
        env=variables,
        stdout=subprocess.PIPE,
        text=True,
    )
    server = int(client.stdout.readline().split()[-1])
    os.kill(server, signal.SIGSTOP)
    try:
        client.kill()
        client.wait()
        with (tmp_path / "leases/SIM-0.card").open() as stream, pytest.raises(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    finally:
        os.kill(server, signal.SIGCONT)
    later = run(command(tmp_path, PRINT_LEASE, "--gpu", "1"), {**variables, "RANKWISE_WARM": "0"})
    assert later.stdout.split()[:2] == ["SIM-0", "False"]


def test_a_quantized_job_on_a_gpu_is_not_a_fork(tmp_path: Path) -> None:
    """Its client runs it: bitsandbytes starts CUDA when imported, and CUDA does not survive a fork."""
    script = "import os, sys; print(os.getpid(), 'torch' in sys.modules)"
    request = json.dumps({"code": {"rankwise.models.quantized": ""}})
    client = subprocess.Popen(
        command(tmp_path, script, "--gpu", "1", request=request),
        env=environment(tmp_path, 8),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.communicate()[0].split() == [str(client.pid), "False"]
    assert not (tmp_path / f"rankwise-{os.getuid()}").exists()


def test_what_no_gpu_can_give_ends_the_job_with_a_sentence(tmp_path: Path) -> None:
    job = command(tmp_path, PRINT_LEASE, "--gpu", "0", "--gpu-memory-gib", "9")
    done = run(job, environment(tmp_path, 8))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == (
        "resources: gpu, gpu_memory_gib: got 9 GiB of one GPU, "
        "allowed on this machine: SIM-0 (simulated, 8.0 GiB)"
    )


OUT_OF_MEMORY = """
import sys, torch  # the script of a training job has imported it, too
from rankwise.execution.job import run

if __name__ == "__main__":
    run(lambda request: {"status": "out_of_memory", "reason": "no room"})
"""


def test_out_of_memory_on_a_share_is_a_result_only_after_a_run_alone(tmp_path: Path) -> None:
    script = tmp_path / "script0.py"  # where `command` puts it
    script.write_text(OUT_OF_MEMORY)
    lock = ROOT / "envs/cpu.lock"
    request = {
        "code": provenance.code_digests(script),
        "environment": {"lock": "envs/cpu.lock", "digest": lock_digest(lock)},
    }
    script.unlink()
    share = ("--gpu", "0", "--gpu-memory-gib", "2")
    job = command(tmp_path, OUT_OF_MEMORY, *share, request=json.dumps(request))
    output = tmp_path / "result.json"
    done = run([*job, "--output", str(output)], environment(tmp_path, 8, RANKWISE_WARM="0"))
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "GPU" in line] == [
        "rankwise: runs on 2.00 GiB of a GPU: SIM-0 (simulated, 8.0 GiB)",
        "out of memory with 2147483648 bytes of a GPU; running again, alone on one",
        "rankwise: runs on a whole GPU: SIM-0 (simulated, 8.0 GiB)",
    ]
    result = json.loads(output.read_text())
    assert result["status"] == "out_of_memory"
    assert result["environment"]["card"] == {"uuids": ["SIM-0"], "shared": False, "others_bytes": 0}


# Snakemake -----------------------------------------------------------------------------------------

STUDY = "tests/studies/rerun.yaml"


@pytest.mark.parametrize(
    ("sizes_gib", "arguments", "sentence"),
    [
        ((8,), ("--resources", "gpu=2"),
         "snakemake: --resources gpu: got 2, allowed: at most 1 on this machine, for it has SIM-0 (simulated, 8.0 GiB)"),
        ((8, 8), ("--resources", "gpu=2"), None),
        ((8, 8), ("--resources", "gpu=3"), "got 3, allowed: at most 2 on this machine"),
        ((), ("--resources", "gpu=2"), "got 2, allowed: at most 0 on this machine, for it shows no NVIDIA GPU"),
        ((8,), ("--resources", "gpu=1", "--set-resources", "train:gpu=2"),
         "snakemake: --set-resources train:gpu: got 2, allowed: at most 1, as --resources gpu says"),
    ],
)  # fmt: skip
def test_more_gpus_than_there_are_is_refused_and_not_clipped(
    sizes_gib: tuple, arguments: tuple, sentence: str | None, tmp_path: Path
) -> None:
    variables = simulate(tmp_path, *sizes_gib)
    done = run_snakemake(ROOT, "-n", "--configfile", STUDY, *arguments, **variables)
    if sentence is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode != 0
        assert sentence in done.stderr.strip().splitlines()[-1]


def test_a_study_on_gpus_that_is_given_none_is_refused(tmp_path: Path) -> None:
    root = copy_repository(tmp_path / "clone")
    study = {**yaml.safe_load((root / STUDY).read_text()), "device": "cuda"}
    (root / "config/gpus.yaml").write_text(yaml.safe_dump(study))
    arguments = ("--configfile", "config/gpus.yaml", "--cores", "1", "--resources", "gpu=0")
    done = run_snakemake(root, *arguments, **simulate(tmp_path, 8))
    sentence = (
        "snakemake: --resources gpu: got 0, allowed: at least 1, for train of config/gpus.yaml"
    )
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Execute" not in done.stderr


SHARED = """
name: share
question: Which part of a GPU does a training run take?
device: cuda
share: true
schedule: {updates: 2, batch_size: 8, eval_batch_size: 64}
train: [{models: [tiny], datasets: [generated_reviews], methods: [full, lora], ranks: [2], seeds: [0]}]
"""


def read(root: Path, short_path: str) -> dict:
    return json.loads(made(root, short_path).read_text())


def training_result(method: str) -> str:
    return f"results/share/runs/tiny/generated_reviews/{method}/seed0/train.json"


def prediction(method: str) -> str:
    return f"results/share/profiles/tiny/generated_reviews/{method}/predict.json"


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("nvidia-smi") is not None,
    reason="the simulated GPU would hide the real one from training jobs",
)
def test_a_study_that_shares_gives_each_run_its_predicted_part(tmp_path: Path) -> None:
    """torch finds no GPU, so accelerate trains on the CPU. A change of `share` reruns nothing."""
    root = copy_repository(tmp_path / "clone")
    edit(root / "config/models.yaml", "schedule: {updates: 900", "schedule: {updates: 2")
    edit(root / "config/datasets.yaml", "rows: {train: 12000", "rows: {train: 1200")
    (root / "config/shared.yaml").write_text(SHARED)
    variables = {**simulate(tmp_path, 4), "TMPDIR": str(tmp_path)}
    options = ("--configfile", "config/shared.yaml", "--cores", "2")
    assert run_snakemake(root, "predictions", *options, **variables).returncode == 0

    # Without its prediction, a run takes a whole GPU.
    kept, place = tmp_path / "kept", made(root, prediction("lora/r2")).resolve().parent
    place.rename(kept)
    whole = run_snakemake(root, training_result("lora/r2"), *options, **variables)
    assert "config/shared.yaml: share: 1 of 1 trainings are not predicted" in whole.stderr
    assert read(root, training_result("lora/r2"))["environment"]["card"]["shared"] is False
    kept.rename(place)
    shutil.rmtree(root / "results/store/runs")

    table = ("results/share/tables/runs.csv", *options)
    done = run_snakemake(root, *table, **variables)
    assert done.returncode == 0, done.stderr[-5000:]
    assert "not predicted" not in done.stderr
    for method in ("full/r0", "lora/r2"):
        lease = read(root, training_result(method))["environment"]["card"]
        share_bytes = lease.pop("share_bytes")
        assert lease == {"uuids": ["SIM-0"], "shared": True, "others_bytes": 0}
        peak_bytes = read(root, prediction(method))["metrics"]["peak_bytes"]
        # 10 % more than predicted, 0.25 GiB of workspace, 600 MiB of CUDA; rounded up to 0.01 GiB
        expected = 1.1 * peak_bytes + 2**28 + 600 * 2**20
        assert 0 <= share_bytes - expected < 0.011 * 2**30
    edit(root / "config/shared.yaml", "share: true", "share: false")
    assert "Nothing to be done" in run_snakemake(root, "-n", *table, **variables).stdout


# Tables --------------------------------------------------------------------------------------------


def write_result(folder: Path, method: str, seconds: float, **lease: object) -> Path:
    """The result of a run with this lease and step time."""
    request = {
        "cell": {"model": "m", "dataset": "d", "method": method, "rank": 0, "seed": 0},
        "schedule": {"batch_size": 8, "accumulation_steps": 1},
        "device": "cuda",
        "method": {"learning_rate": 0.1, "options": {}, "optimizer": {}},
        "inputs": {},
    }
    path = folder / provenance.digest(request) / "train.json"
    environment = {"card": {"uuids": ["SIM-0"], **lease}}
    result.write(path, request, {"cost": {"step_time_s": seconds}}, environment)
    return path


def test_the_time_of_a_run_on_a_shared_gpu_is_in_no_summary(tmp_path: Path) -> None:
    alone = write_result(tmp_path, "alone", 1.0, shared=False, others_bytes=0)
    shared = write_result(tmp_path, "shared", 2.0, shared=True, others_bytes=0)
    beside = write_result(tmp_path, "beside", 3.0, shared=False, others_bytes=2**30)
    runs = tidy.collect([alone, shared, beside])
    reasons = dict(zip(runs["method"], runs["taint"], strict=True))
    assert reasons["alone"] is None
    assert reasons["shared"].startswith("other jobs on the ")
    assert reasons["beside"].startswith("other processes on the ")
    times = costs({"runs": runs}).table["step_time_s"].droplevel(["model", "dataset", "rank"])
    nan = float("nan")
    assert times.to_dict() == pytest.approx(
        {"alone": 1.0, "shared": nan, "beside": nan}, nan_ok=True
    )
    assert "taint" not in tidy.collect([alone])
