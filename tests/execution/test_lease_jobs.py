"""A job has its card before it starts and until its last process is gone; Snakemake's limits are those of the machine."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from helpers.repository import CLEAN, ROOT, copy_repository, edit, run_snakemake
from rankwise.analysis import tidy
from rankwise.analysis.costs import costs
from rankwise.core import provenance

REQUEST = json.dumps({"code": {}})
SEES = """
import json, os, sys, time
card = json.loads(os.environ["RANKWISE_CARD"])
print(os.environ["CUDA_VISIBLE_DEVICES"], card["shared"], card.get("share_bytes"), os.getppid(), flush=True)
"""


def pool(folder: Path, *sizes: float) -> dict[str, str]:
    """What makes jobs take simulated cards (GiB), from a folder of leases and a server of a test's own."""
    entries = [
        {"uuid": f"SIM-{number}", "name": "simulated", "memory_gib": size}
        for number, size in enumerate(sizes)
    ]
    (folder / "cards.json").write_text(json.dumps(entries))
    return {
        "RANKWISE_CARDS": str(folder / "cards.json"),
        "RANKWISE_LEASES": str(folder / "leases"),
        "TMPDIR": str(folder),
    }


def command(folder: Path, text: str, *cards: str, request: str = REQUEST) -> list[str]:
    script = folder / f"script{len(list(folder.glob('script*')))}.py"
    script.write_text(text)
    return [
        sys.executable,
        "-m",
        "rankwise.execution.worker_client",
        *cards,
        str(script),
        "--request",
        request,
    ]


def environment(folder: Path, *sizes: float, **more: str) -> dict[str, str]:
    return {**CLEAN, "PYTHONPATH": str(ROOT / "src"), **pool(folder, *sizes), **more}


def run(job: list[str], own: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(job, env=own, capture_output=True, text=True, check=False)


def wait(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def test_jobs_of_one_server_see_their_own_cards(tmp_path: Path) -> None:
    """Whichever card it is, the server is the same one."""
    own = environment(tmp_path, 8, 24)
    first = subprocess.Popen(
        command(tmp_path, SEES + "sys.stdin.read()", "--gpu", "1", "--gpu-memory-gib", "0"),
        env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    *said, server = first.stdout.readline().split()
    assert said == ["SIM-0", "False", "None"]
    second = run(command(tmp_path, SEES, "--gpu", "0", "--gpu-memory-gib", "1.5"), own)
    assert second.stdout.split() == ["SIM-1", "True", str(3 * 2**29), server]
    assert second.stderr == "rankwise: runs on 1.50 GiB of a card: SIM-1 (simulated, 24.0 GiB)\n"
    third = run(
        command(
            tmp_path,
            SEES.replace("card =", "card = {'shared': 0} if 1 else"),
            "--gpu",
            "0",
            "--gpu-memory-gib",
            "0",
        ),
        own,
    )
    assert "KeyError: 'CUDA_VISIBLE_DEVICES'" in third.stderr
    first.communicate("go on")
    assert first.returncode == 0
    assert not list((tmp_path / "leases").glob("*.job"))


def test_a_card_is_free_when_the_job_is_gone_and_not_when_its_caller_is(tmp_path: Path) -> None:
    """The caller is killed while the server, which would kill the job, is stopped."""
    own = environment(tmp_path, 8)
    caller = subprocess.Popen(
        command(tmp_path, SEES + "time.sleep(600)", "--gpu", "1"),
        env=own,
        stdout=subprocess.PIPE,
        text=True,
    )
    server = int(caller.stdout.readline().split()[-1])
    os.kill(server, signal.SIGSTOP)
    try:
        caller.kill()
        caller.wait()
        with (tmp_path / "leases/SIM-0.card").open() as stream, pytest.raises(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    finally:
        os.kill(server, signal.SIGCONT)
    done = run(command(tmp_path, SEES, "--gpu", "1"), {**own, "RANKWISE_WARM": "0"})
    assert done.stdout.split()[:2] == ["SIM-0", "False"]


def test_a_quantized_job_on_a_card_is_no_fork(tmp_path: Path) -> None:
    """Its caller runs it: bitsandbytes starts CUDA as it is imported, which no server may have done."""
    text = "import os, sys; print(os.getpid(), 'torch' in sys.modules)"
    job = command(
        tmp_path,
        text,
        "--gpu",
        "1",
        request=json.dumps({"code": {"rankwise.models.quantized": ""}}),
    )
    caller = subprocess.Popen(job, env=environment(tmp_path, 8), stdout=subprocess.PIPE, text=True)
    assert caller.communicate()[0].split() == [str(caller.pid), "False"]
    assert not (tmp_path / f"rankwise-{os.getuid()}").exists()


def test_what_no_card_can_give_ends_the_job_with_a_sentence(tmp_path: Path) -> None:
    done = run(
        command(tmp_path, SEES, "--gpu", "0", "--gpu-memory-gib", "9"), environment(tmp_path, 8)
    )
    assert (done.returncode, done.stdout) == (1, "")
    said = "resources: gpu, gpu_memory_gib: got 9 GiB of one card, allowed on this machine: SIM-0 (simulated, 8.0 GiB)"
    assert done.stderr.strip() == said


OUT_OF_MEMORY = """
import sys, torch  # as a training's script has
from rankwise.execution.job import run

if __name__ == "__main__":
    run(lambda request: {"status": "out_of_memory", "reason": "no room"})
"""


def test_out_of_memory_on_a_shared_card_is_no_result_until_the_job_was_alone(
    tmp_path: Path,
) -> None:
    script = tmp_path / "script0.py"
    script.write_text(OUT_OF_MEMORY)
    request = {
        "code": provenance.code_digests(script),
        "environment": {
            "lock": "envs/cpu.lock",
            "digest": provenance.lock_digest(ROOT / "envs/cpu.lock"),
        },
    }
    script.unlink()
    job = command(
        tmp_path, OUT_OF_MEMORY, "--gpu", "0", "--gpu-memory-gib", "2", request=json.dumps(request)
    )
    own = environment(tmp_path, 8, RANKWISE_WARM="0")
    done = run([*job, "--output", str(tmp_path / "result.json")], own)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "card" in line]
    assert said == [
        "rankwise: runs on 2.00 GiB of a card: SIM-0 (simulated, 8.0 GiB)",
        "out of memory with 2147483648 bytes of a card, so this job is run again, alone on one",
        "rankwise: runs on a whole card: SIM-0 (simulated, 8.0 GiB)",
    ]
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["status"] == "out_of_memory"
    assert found["environment"]["card"] == {"uuids": ["SIM-0"], "shared": False, "others_bytes": 0}


# Snakemake ------------------------------------------------------------------------------------------------------------

STUDY = "tests/studies/rerun.yaml"


@pytest.mark.parametrize(
    ("cards", "arguments", "sentence"),
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
def test_more_cards_than_there_are_is_refused_and_not_clipped(
    cards, arguments, sentence, tmp_path: Path
) -> None:
    own = pool(tmp_path, *cards)
    done = run_snakemake(ROOT, "-n", "--configfile", STUDY, *arguments, **own)
    if sentence is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode != 0
        assert sentence in done.stderr.strip().splitlines()[-1]


def test_a_study_on_cards_that_is_given_none_is_refused(tmp_path: Path) -> None:
    root = copy_repository(tmp_path / "clone")
    study = {**yaml.safe_load((root / STUDY).read_text()), "device": "cuda"}
    (root / "config/cards.yaml").write_text(yaml.safe_dump(study))
    own = pool(tmp_path, 8)
    done = run_snakemake(
        root, "--configfile", "config/cards.yaml", "--cores", "1", "--resources", "gpu=0", **own
    )
    assert done.returncode != 0
    assert (
        "snakemake: --resources gpu: got 0, allowed: at least 1, for train of config/cards.yaml"
        in done.stderr
    )
    assert "Execute" not in done.stderr


SHARED = """
name: share
question: Which part of a card does a training take?
device: cuda
share: true
schedule: {updates: 2, batch_size: 8, eval_batch_size: 64}
train: [{models: [tiny], datasets: [generated_reviews], methods: [full, lora], ranks: [2], seeds: [0]}]
"""


def train(method: str) -> str:
    return f"results/runs/tiny/generated_reviews/{method}/seed0/train.json"


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("nvidia-smi") is not None,
    reason="the simulated card would hide the real one from trainings",
)
def test_a_study_that_shares_gives_each_training_its_predicted_part(tmp_path: Path) -> None:
    """On a simulated card; where torch finds none, accelerate trains on the CPU. A change of `share` reruns nothing."""
    root = copy_repository(tmp_path / "clone")
    edit(root / "config/models.yaml", "schedule: {updates: 900", "schedule: {updates: 2")
    edit(root / "config/datasets.yaml", "rows: {train: 12000", "rows: {train: 1200")
    (root / "config/shared.yaml").write_text(SHARED)
    own = pool(tmp_path, 4)
    command = ("results/tables/runs.csv", "--configfile", "config/shared.yaml", "--cores", "2")
    assert run_snakemake(root, "predictions", *command[1:], **own).returncode == 0
    (root / "results/profiles/tiny/generated_reviews/lora/r2/predict.json").rename(
        tmp_path / "kept.json"
    )
    whole = run_snakemake(root, train("lora/r2"), *command[1:], **own)
    assert (
        "config/shared.yaml: share: 1 of 1 trainings are not predicted, so each takes a whole GPU"
        in whole.stderr
    )
    assert read(root / train("lora/r2"))["environment"]["card"]["shared"] is False
    (tmp_path / "kept.json").rename(
        root / "results/profiles/tiny/generated_reviews/lora/r2/predict.json"
    )
    (root / train("lora/r2")).unlink()
    done = run_snakemake(root, *command, **own)
    assert done.returncode == 0, done.stderr[-5000:]
    assert "not predicted" not in done.stderr
    for method in ("full/r0", "lora/r2"):
        found = read(root / train(method))
        predicted = read(root / f"results/profiles/tiny/generated_reviews/{method}/predict.json")[
            "metrics"
        ]
        share = found["environment"]["card"]["share_bytes"]
        assert found["environment"]["card"] == {
            "uuids": ["SIM-0"],
            "shared": True,
            "others_bytes": 0,
            "share_bytes": share,
        }
        assert 0 <= share - 1.1 * predicted["peak_bytes"] - 2**28 - 600 * 2**20 < 0.011 * 2**30
    edit(root / "config/shared.yaml", "share: true", "share: false")
    assert "Nothing to be done" in run_snakemake(root, "-n", *command, **own).stdout


# Tables ---------------------------------------------------------------------------------------------------------------


METHOD = {"learning_rate": 0.1, "options": {}, "optimizer": {}}


def result(folder: Path, name: str, card: dict, seconds: float) -> tuple[Path, dict]:
    cell = {"model": "m", "dataset": "d", "method": name, "rank": 0, "seed": 0}
    schedule = {"batch_size": 8, "accumulation_steps": 1}
    request = {"cell": cell, "schedule": schedule, "device": "cuda", "method": METHOD, "inputs": {}}
    found = {
        "status": "ok",
        "request": request,
        "cost": {"step_time_s": seconds},
        "environment": {"card": card},
    }
    (folder / f"{name}.json").write_text(json.dumps(found))
    return folder / f"{name}.json", request


def test_the_time_of_a_run_on_a_shared_card_is_in_no_summary(tmp_path: Path) -> None:
    pairs = [
        result(tmp_path, "alone", {"uuids": ["SIM-0"], "shared": False, "others_bytes": 0}, 1.0),
        result(tmp_path, "shared", {"uuids": ["SIM-0"], "shared": True, "others_bytes": 0}, 2.0),
        result(
            tmp_path, "beside", {"uuids": ["SIM-0"], "shared": False, "others_bytes": 2**30}, 3.0
        ),
    ]
    runs = tidy.collect(pairs)
    reasons = {
        "alone": None,
        "shared": "other jobs on the card",
        "beside": "other processes on the card",
    }
    assert dict(zip(runs["method"], runs["taint"], strict=True)) == reasons
    times = costs({"runs": runs}).table["step_time_s"].droplevel(["model", "dataset", "rank"])
    assert times.to_dict() == pytest.approx(
        {"alone": 1.0, "shared": float("nan"), "beside": float("nan")}, nan_ok=True
    )
    assert "taint" not in tidy.collect(pairs[:1])
