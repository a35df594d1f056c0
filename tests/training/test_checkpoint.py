"""A training that was stopped, wherever, and begun again comes out as one that was not: to the bit, and nothing is left of it."""

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from accelerate.state import AcceleratorState

from helpers.prepared import prepare
from helpers.repository import CLEAN, ROOT, copy_repository, edit, run_snakemake
from rankwise.core import compare
from rankwise.core.paths import CHECKPOINTS
from rankwise.study.plan import Plan
from rankwise.training import checkpoint, evaluation, pretrain
from rankwise.training import run as training
from rankwise.training.checkpoint import STATUS, Checkpoint, Stopped

# Every method, with settings that make what happens rarely happen within 20 updates. An epoch ends within a window of accumulation.
SMOKE = yaml.safe_load((ROOT / "config/methods_smoke.yaml").read_text())
UNEVEN = {
    "updates": 20,
    "batch_size": 16,
    "accumulation_steps": 2,
    "eval_batch_size": 200,
    "evaluate_every_updates": 6,
}
METHODS = yaml.safe_load((ROOT / "config/methods.yaml").read_text())
ENTRIES = [name for name in METHODS if name not in ("frozen", "prefix_tuning")]
# Optimizers that step inside backward cannot clip gradients; all others are clipped here.
STEPS_INSIDE = ["full_released", "lomo", "adalomo"]
GRIDS = [
    {
        **SMOKE["train"][0],
        "methods": [name for name in METHODS if name not in STEPS_INSIDE],
        "schedule": {"max_gradient_norm": 1.0},
    },
    {**SMOKE["train"][0], "methods": STEPS_INSIDE},
]
FEW = [
    "full",
    "lora",
    "rsvd",
    "sparse_lora",
    "weight_reduction_shrunk",
    "qlora",
    "rsvd_released",
    "vlorp",
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """A folder with inputs, and the plan of a training for each method: 100 examples, 7 micro-batches an epoch; a base with dropout."""
    root = tmp_path_factory.mktemp("inputs")
    plan = Plan({**SMOKE, "train": GRIDS, "profile": []}, ROOT, "config/methods_smoke.yaml")
    prepare(plan, root, rows={"train": 500})
    edit(root / "results/inputs/models/tiny/config.json", '"dropout": 0.0', '"dropout": 0.2')
    return root, plan


@pytest.fixture
def run(prepared: tuple[Path, Plan], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """Train one method in this process, from its checkpoint on if there is one."""
    root, plan = prepared
    monkeypatch.chdir(root)

    def train(method: str, **changes: object) -> dict:
        request = copy.deepcopy(
            plan.request(
                "train", next(cell for cell in plan.cells("train") if cell.method == method)
            )
        )
        fused = (
            request["schedule"]["max_gradient_norm"] is None
        )  # steps within backward, which takes no accumulation either
        request["schedule"] |= {**UNEVEN, "accumulation_steps": 1} if fused else UNEVEN
        request["method"] |= changes
        AcceleratorState._reset_state(reset_partial_state=True)
        return training.train(request)

    return train


def stop_after(checks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is told to stop, by a real signal, before the check of this number: they are between batches, evaluated ones too."""
    check, left = Checkpoint.check, [checks]

    def counted(self: Checkpoint) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        check(self)

    monkeypatch.setattr(Checkpoint, "check", counted)


def reproducible(found: dict) -> str:
    return json.dumps(
        {name: part for name, part in found.items() if name != "cost"}, sort_keys=True
    )


def interrupted(train: Callable[[], dict], stops: list[int]) -> dict:
    """What a training comes to that is stopped so many checks after each of its beginnings."""
    for checks in stops:
        with pytest.MonkeyPatch.context() as patch:
            stop_after(checks, patch)
            with pytest.raises(Stopped) as stopped:
                train()
        assert stopped.value.code == STATUS == 143
        assert [path.suffix for path in CHECKPOINTS.iterdir()] == [".pt"], "one whole file"
    return train()


@pytest.mark.parametrize(
    "method",
    [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in ENTRIES if name not in FEW)],
)
def test_what_was_stopped_comes_out_as_what_was_not(method: str, run) -> None:
    """Within the first evaluation, after some updates, within a later evaluation, and within the epoch that follows."""
    whole = run(method)
    assert whole.get("status", "ok") == "ok"
    assert reproducible(interrupted(lambda: run(method), [1, 9, 6, 5])) == reproducible(whole)
    assert not list(CHECKPOINTS.iterdir())


def test_a_pre_training_goes_on_too(
    prepared: tuple[Path, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its masks are drawn batch by batch: those of the batches that were seen are drawn again."""
    root, plan = prepared
    monkeypatch.chdir(root)
    request = plan.input_request("model", "tiny")

    def made(name: str) -> dict:
        (tmp_path / name).mkdir(exist_ok=True)
        AcceleratorState._reset_state(reset_partial_state=True)
        return pretrain.pretrain(request, tmp_path / name)

    assert reproducible(interrupted(lambda: made("stopped"), [12, 7])) == reproducible(
        made("whole")
    )


def test_what_dies_without_a_word_has_lost_little(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint an update, for the test; the process is gone in the middle of a later one."""
    whole = run("lora")
    monkeypatch.setattr(checkpoint, "EVERY_S", 0)
    saved = []
    with pytest.MonkeyPatch.context() as patch:
        save = Checkpoint.save

        def dies(self: Checkpoint, state: dict) -> None:
            if len(saved) == 7:
                raise MemoryError
            saved.append(state["counts"]["updates"])
            save(self, state)

        patch.setattr(Checkpoint, "save", dies)
        with pytest.raises(MemoryError):
            run("lora")
    again = []
    monkeypatch.setattr(
        Checkpoint, "save", lambda self, state: again.append(state["counts"]["updates"])
    )
    assert reproducible(run("lora")) == reproducible(whole)
    assert (saved, again) == (list(range(1, 8)), list(range(8, 21)))


def test_what_has_nothing_left_to_learn_ends(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told to stop while the reported split is evaluated, the last there is to do, a training has its result."""
    whole, evaluate, calls = run("lora"), evaluation.evaluate, []

    def told(*given: object) -> dict:
        calls.append(given)
        if len(calls) == len(whole["history"]) + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*given)

    monkeypatch.setattr(evaluation, "evaluate", told)
    assert reproducible(run("lora")) == reproducible(whole)
    assert len(calls) == len(whole["history"]) + 1


def test_times_add_up_over_stops(run) -> None:
    found = interrupted(lambda: run("full"), [12])
    assert (
        0
        < found["cost"]["evaluation_time_s"]
        < found["cost"]["evaluation_time_s"] + found["cost"]["train_time_s"]
        < 600
    )


def test_a_diverged_run_is_a_result_and_leaves_no_checkpoint(
    run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "EVERY_S", 0)
    assert run("full", learning_rate=1e30)["status"] == "diverged"
    assert not list(CHECKPOINTS.iterdir())


# Real jobs ------------------------------------------------------------------------------------------------------------

STUDY = {
    "name": "stopped", "question": "Does what was stopped go on?", "device": "cpu", "environment": "cpu", "cpu_threads": 1,
    "schedule": {"updates": 900, "batch_size": 8, "eval_batch_size": 200, "evaluate_every_updates": 50},
    "train": [{"models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["lora"], "ranks": [4], "seeds": [0]}],
}  # fmt: skip
RESULT = "results/runs/tiny/generated_reviews/lora/r4/seed0/train.json"
ASKED = ["--configfile", "config/stopped.yaml", "--cores", "2", "--", RESULT]
LOG = "logs/train/tiny/generated_reviews/lora/r4/seed0.log"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = copy_repository(tmp_path_factory.mktemp("stopped") / "clone")
    (root / "config/stopped.yaml").write_text(yaml.safe_dump(STUDY))
    edit(root / "config/models.yaml", "schedule: {updates: 900", "schedule: {updates: 20")
    edit(root / "config/datasets.yaml", "rows: {train: 12000", "rows: {train: 1200")
    done = run_snakemake(root, *ASKED)
    assert done.returncode == 0, done.stderr[-5000:]
    (root / RESULT).rename(root / "whole.json")
    return root


def wait(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def rankwise(root: Path, *arguments: str) -> str:
    command, environment = (
        [sys.executable, "-m", "rankwise.cli.main", *arguments],
        {**CLEAN, "PYTHONPATH": str(root / "src")},
    )
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=True
    ).stdout


def trains(root: Path) -> bool:
    """Whether a training is under way, some evaluations after its beginning."""
    return (root / LOG).is_file() and (root / LOG).read_text().count("\nepoch") >= 2


def jobs(root: Path) -> list[int]:
    """Processes of trainings in this clone."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").resolve() == root and b"train.py" in (
                process / "cmdline"
            ).read_bytes():
                found.append(int(process.name))
    return found


def kill(snakemake: subprocess.Popen) -> None:
    """Snakemake alone, by what cannot be caught; who does so opens its lock afterwards."""
    root = Path(f"/proc/{snakemake.pid}/cwd").resolve()
    snakemake.kill()
    snakemake.wait()
    assert run_snakemake(root, "--configfile", "config/stopped.yaml", "--unlock").returncode == 0


def ctrl_c(snakemake: subprocess.Popen) -> None:
    os.killpg(snakemake.pid, signal.SIGINT)


def slurm(snakemake: subprocess.Popen) -> None:
    """As SLURM preempts: SIGTERM for every process of this run, whatever its session."""
    own = f"STOPPED={Path(f'/proc/{snakemake.pid}/cwd').resolve()}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if own in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "warm"), [(ctrl_c, "1"), (slurm, "1"), (slurm, "0"), (kill, "1")])
def test_a_workflow_that_was_stopped_goes_on(
    stop: Callable[[subprocess.Popen], None], warm: str, clone: Path
) -> None:
    """The job keeps where it is, and no process is left; the next run takes it from there."""
    for left in (RESULT, LOG):
        (clone / left).unlink(missing_ok=True)
    command, environment = (
        [str(Path(sys.executable).with_name("snakemake")), *ASKED],
        {**CLEAN, "RANKWISE_WARM": warm},
    )
    first = subprocess.Popen(command, cwd=clone, env={**environment, "STOPPED": str(clone)}, stderr=subprocess.PIPE, text=True,
                             start_new_session=True)  # fmt: skip
    wait(lambda: trains(clone))
    stop(first)
    said = first.communicate(timeout=120)[1]
    assert first.returncode != 0, said
    wait(lambda: not jobs(clone), 10)
    assert ": kept after update " in (clone / LOG).read_text(), said
    assert len(list((clone / CHECKPOINTS).iterdir())) == 1
    assert not (clone / RESULT).exists()
    plan = json.loads(rankwise(clone, "plan", "--study", "config/stopped.yaml", "--json"))
    assert [job["why"] for job in plan["jobs"] if job["job"] == "train"] == [
        ["not there yet", "goes on from its checkpoint"]
    ]
    done = run_snakemake(clone, *ASKED, RANKWISE_WARM=warm)
    assert done.returncode == 0, done.stderr[-5000:]
    assert ": goes on after update " in (clone / LOG).read_text()
    assert (
        compare.gap(
            json.loads((clone / RESULT).read_text()), json.loads((clone / "whole.json").read_text())
        )
        is None
    )
    assert not list((clone / CHECKPOINTS).iterdir())
