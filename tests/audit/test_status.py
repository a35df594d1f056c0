"""What `rankwise status` says of a study, from results and progress files made by hand."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from helpers import stored
from helpers.nvidia_smi import install_nvidia_smi
from rankwise.audit.status import StudyStatus
from rankwise.cli import main, status_text
from rankwise.core import progress
from rankwise.study.jobs import PlannedJob, document_jobs, result_jobs
from rankwise.study.plan import read_plan

FILE = "config/s.yaml"
STUDY = {
    "name": "s",
    "question": "?",
    "device": "cpu",
    "schedule": {"updates": 9},
    "train": [
        {
            "models": ["tiny"],
            "datasets": ["generated_reviews"],
            "methods": ["full", "lora"],
            "ranks": [2],
            "seeds": [0, 1],
        }
    ],
}
FULL_0, FULL_1, LORA_0, LORA_1 = (
    f"tiny/generated_reviews/{curve}/seed{seed}" for curve in ("full/r0", "lora/r2") for seed in (0, 1)
)  # fmt: skip


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the study and nothing else, on a machine without a GPU."""
    (tmp_path / "config").mkdir()
    (tmp_path / FILE).write_text(yaml.safe_dump(STUDY))
    (tmp_path / "gpus.json").write_text("[]")
    monkeypatch.setenv("RANKWISE_CARDS", str(tmp_path / "gpus.json"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def job(project: Path) -> Callable[[str], PlannedJob]:
    """A job of the study by its name; there are two datasets, a model, and four trainings."""
    jobs = {job.name: job for job in result_jobs(read_plan(project, FILE))}
    return lambda name: jobs[name]


def finish(job: PlannedJob, seconds: float, status: str = "ok") -> None:
    stored.finish(Path(), job, {"job_time_s": seconds}, status=status)


def inputs_are_done(job) -> None:
    for name in ("generated_text", "generated_reviews", "tiny"):
        finish(job(name), 5)


def fail(job: PlannedJob, error: BaseException) -> None:
    with contextlib.suppress(type(error)), progress.reported(job.request):
        raise error


@contextlib.contextmanager
def running(*jobs: PlannedJob) -> Iterator[None]:
    """Jobs that run in this process."""
    with contextlib.ExitStack() as stack:
        for each in jobs:
            stack.enter_context(progress.reported(each.request))
        yield


def status(project: Path) -> dict:
    found = StudyStatus(project, FILE).now()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


# Counts -------------------------------------------------------------------------------------------


def test_nothing_has_run(project: Path) -> None:
    found = status(project)
    assert found["kinds"] == {"dataset": {"waiting": 2}, "model": {"waiting": 1}, "train": {"waiting": 4}}  # fmt: skip
    assert (found["running"], found["failed"], found["gpus"]) == ([], [], [])
    assert found["left"] == {"work_s": 0, "wall_s": None, "at_once": 0, "unknown": 7}
    assert found["documents"]["written"] == 0


def test_each_state_is_counted(project: Path, job) -> None:
    inputs_are_done(job)
    finish(job(FULL_0), 5, status="diverged")
    fail(job(LORA_0), ValueError("rows.csv: got 3, allowed: 2"))
    fail(job(LORA_1), SystemExit(143))  # it was told to stop, and resumes
    with running(job(FULL_1)):
        found = status(project)
    assert found["kinds"] == {
        "dataset": {"done": 2},
        "model": {"done": 1},
        "train": {"done": 1, "running": 1, "failed": 1, "waiting": 1},
    }
    assert found["statuses"] == {"diverged": 1}
    assert [each["name"] for each in found["running"]] == [FULL_1]
    (failed,) = found["failed"]
    assert (failed["name"], failed["state"]) == (LORA_0, "failed")
    assert failed["reason"] == "ValueError: rows.csv: got 3, allowed: 2"


def test_a_result_of_another_plan_is_not_done(project: Path, job) -> None:
    finish(job(FULL_0), 5)
    changed = {**STUDY, "schedule": {"updates": 10}}
    (project / FILE).write_text(yaml.safe_dump(changed))
    assert status(project)["kinds"]["train"] == {"waiting": 4}


def test_a_result_that_came_after_a_failure_counts(project: Path, job) -> None:
    fail(job(FULL_0), ValueError("x"))
    finish(job(FULL_0), 5)
    found = status(project)
    assert found["kinds"]["train"] == {"done": 1, "waiting": 3}
    assert found["failed"] == []


def test_jobs_that_need_a_failed_one_are_blocked(project: Path, job) -> None:
    """The corpus of the model has failed: no model, so no training; the other dataset can run."""
    fail(job("generated_text"), ValueError("x"))
    found = status(project)
    assert found["kinds"] == {
        "dataset": {"failed": 1, "waiting": 1},
        "model": {"blocked": 1},
        "train": {"blocked": 4},
    }
    assert found["left"]["unknown"] == 1  # what is blocked does not run


def test_tables_that_run_or_fail_are_named(project: Path) -> None:
    table = next(job for job in document_jobs(read_plan(project, FILE)) if job.name == "runs")
    fail(table, ValueError("no runs"))
    (failed,) = status(project)["failed"]
    assert (failed["kind"], failed["name"]) == ("table", "runs")


def test_a_later_look_sees_what_has_changed(project: Path, job) -> None:
    looks = StudyStatus(project, FILE)
    assert looks.now()["kinds"]["train"] == {"waiting": 4}
    finish(job(FULL_0), 5)
    assert looks.now()["kinds"]["train"] == {"done": 1, "waiting": 3}
    Path(job(FULL_0).path).resolve().unlink()
    assert looks.now()["kinds"]["train"] == {"waiting": 4}


# Time left ----------------------------------------------------------------------------------------


def test_time_left_from_recorded_times(project: Path, job) -> None:
    """100 s of the running job (its curve took 100 s), and 2 * 100 s, the median of trainings."""
    inputs_are_done(job)
    finish(job(FULL_0), 100)
    with running(job(FULL_1)):
        left = status(project)["left"]
    assert left == {"work_s": pytest.approx(300, abs=10), "wall_s": left["work_s"], "at_once": 1, "unknown": 0}  # fmt: skip


def test_time_left_with_two_jobs_at_once(project: Path, job) -> None:
    """100 + 100 s of those that run, and 100 s: half of it each."""
    inputs_are_done(job)
    finish(job(FULL_0), 100)
    with running(job(FULL_1), job(LORA_0)):
        left = status(project)["left"]
    assert left["work_s"] == pytest.approx(300, abs=20)
    assert left["wall_s"] == pytest.approx(150, abs=10)
    assert left["at_once"] == 2


def test_a_training_says_itself_how_long_it_takes(
    project: Path, job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 updates in 8 s and 4000 to make: 16,000 s, longer than the study's other jobs together."""
    inputs_are_done(job)
    finish(job(FULL_0), 100)
    clock = [0.0]
    with running(job(LORA_0), job(FULL_1)):
        monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
        steps = progress.Steps("update", "updates", 4002)
        clock[0] = 8.0
        steps.made(2)
        found = status(project)
    assert found["left"]["work_s"] == pytest.approx(16_000 + 100 + 100, abs=20)
    assert found["left"]["wall_s"] == pytest.approx(16_000, abs=10)


def test_unknown_times_make_a_lower_bound(project: Path, job) -> None:
    inputs_are_done(job)
    with running(job(FULL_1)):
        found = status(project)
    assert found["left"]["unknown"] == 4
    assert "time left: not known; 4 jobs have no time yet" in status_text.text(found)


# Texts --------------------------------------------------------------------------------------------


def test_the_text_for_a_terminal(
    project: Path, job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(progress.time, "time", lambda: 5000.0)
    inputs_are_done(job)
    finish(job(FULL_0), 100)
    fail(job(LORA_0), ValueError("rows.csv: got 3, allowed: 2"))
    install_nvidia_smi(tmp_path, monkeypatch)
    clock = [0.0]
    with running(job(FULL_1)):
        monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
        losses = {"epoch": 1.25, "train_loss_nats": 0.5, "selection_loss_nats": 0.25}
        steps = progress.Steps("update", "updates", 6, numbers=lambda: losses)
        clock[0] = 8.0
        steps.made(2)
        monkeypatch.setattr(progress.time, "time", lambda: 5006.0)
        found = status(project)
    lines = status_text.text(found).splitlines()
    assert lines[:9] == [
        "config/s.yaml: 4 of 7 results are there",
        "  kind     done  running  waiting  failed",
        "  dataset     2        0        0       0",
        "  model       1        0        0       0",
        "  train       1        1        1       1",
        "running:",
        # 4 updates at 0.25/s are 16 s, of which 6 s have passed since.
        f"  train {FULL_1}: 6 s, at work, update 2 of 6, epoch 1.25, training loss 0.5, "
        f"selection loss 0.25, 0.25 updates/s, 10 s left; log: {job(FULL_1).log}",
        "failed:",
        f"  train {LORA_0}: ValueError: rows.csv: got 3, allowed: 2 (while at work, 6 s ago); "
        f"log: {job(LORA_0).log}",
    ]
    assert lines[9].startswith("tables, figures and page: 0 of ")
    assert lines[10:] == [
        "weights not kept: tiny, 2 runs (full), about 280 KiB a run; `keep: merged` in a training grid keeps them",
        "time left: about 1 min 50 s",  # and 100 s of the one that waits
        "GPU-aa-1 (NVIDIA H100): 63% busy, 4.0 of 79.6 GiB in use",
        "MIG-cc-3 (NVIDIA A100 MIG 3g.20gb): its use is not known",
        "MIG-dd-4 (NVIDIA A100 MIG 1g.5gb+me): its use is not known",
    ]


def test_a_job_that_says_nothing_for_long_is_told(project: Path, job, monkeypatch) -> None:
    with running(job(FULL_1)):
        file = next(Path("results/.progress").glob("*.json"))
        record = json.loads(file.read_text()) | {"host": "node7"}
        file.write_text(json.dumps(record))
        now = record["heard"] + 600
        monkeypatch.setattr(progress.time, "time", lambda: now)
        assert "on node7, no word for 10 min" in status_text.text(status(project))


def test_everything_is_done(project: Path, job) -> None:
    inputs_are_done(job)
    for name in (FULL_0, FULL_1, LORA_0, LORA_1):
        finish(job(name), 5, status="ok" if name != LORA_1 else "out_of_memory")
    text = status_text.text(status(project))
    assert text.startswith("config/s.yaml: 7 of 7 results are there\n")
    assert "of those done: 1 out_of_memory\n" in text
    assert text.endswith("\nnothing is left to run")


def test_a_watch_ends_when_nothing_is_left(
    project: Path, job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three looks: at the beginning, after the inputs, after the trainings."""
    inputs_are_done(job)
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        for name in {1: (FULL_0, FULL_1), 2: (LORA_0, LORA_1)}[len(pauses)]:
            finish(job(name), 5)

    monkeypatch.setattr(status_text.time, "sleep", pause)
    assert main.main(["status", "--study", FILE, "--watch", "2.5", "--json"]) == 0
    looks = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line]
    done = [look["kinds"]["train"].get("done", 0) for look in looks]
    assert (done, pauses) == ([0, 2, 4], [2.5, 2.5])


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "often", "1e9"])
def test_nonsense_to_watch(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["status", f"--watch={seconds}"])
    assert f"got '{seconds}', allowed: a number of seconds above 0" in capsys.readouterr().err


def test_a_study_that_is_not_there(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["status", "--study", "config/no.yaml"]) == 1
    assert "config/no.yaml" in capsys.readouterr().err
