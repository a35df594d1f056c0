"""What a training run says while it runs: in its log, its progress file, and to a tracker."""

import copy
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.prepared import prepare, reset_accelerate
from helpers.repository import CLEAN, ROOT
from rankwise.core import progress
from rankwise.study.plan import Plan
from rankwise.training import run as training
from rankwise.training.pretrain import pretrain

STUDY = {
    "name": "reported",
    "question": "?",
    "device": "cpu",
    "schedule": {
        "updates": 6,
        "batch_size": 16,
        "eval_batch_size": 64,
        "evaluate_every_updates": 3,
    },
    "train": [
        {
            "models": ["tiny"],
            "datasets": ["generated_reviews"],
            "methods": ["full", "lora"],
            "ranks": [4],
            "seeds": [0],
        },
    ],
}
# A tracker's package that writes down what it is told, in place of wandb or trackio.
STAND_IN = """
import json, os

def note(*words):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(json.dumps(words) + "\\n")

class Config:
    def update(self, values, **_):
        note("config", values)

class Run:
    config = Config()
    def log(self, values, step=None, **_):
        note("log", step, values)
    def finish(self):
        note("finish")

config = Config()

def init(**options):
    note("init", options)
    return Run()
"""
TRAIN = """
import json, sys
from rankwise.training import run
print(json.dumps(run.train(json.load(open(sys.argv[1])))))
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    root, plan = tmp_path_factory.mktemp("inputs"), Plan(STUDY, ROOT)
    prepare(plan, root, review_rows={"train": 300, "validation": 100}, selection_rows=100)
    return root, plan


@pytest.fixture
def request_of(inputs: tuple[Path, Plan], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict]:
    """The request of a method's cell; the test runs in the folder with the inputs."""
    root, plan = inputs
    monkeypatch.chdir(root)

    def find(method: str) -> dict:
        cell = next(cell for cell in plan.cells("train") if cell.method == method)
        return copy.deepcopy(plan.request("train", cell))

    return find


def train(request: dict) -> dict:
    reset_accelerate()
    return training.train(request)


def digits(request: dict) -> str:
    """The end of a run's name: the first digits of its request's SHA-256."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:8]


def reproducible(result: dict) -> str:
    return json.dumps([result["metrics"], result["history"], result["examples"]])


# Log and progress file ----------------------------------------------------------------------------


def test_reports_change_no_result_and_have_its_numbers(
    request_of, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report after every update, of the losses that the result has; without reports the same."""
    request = request_of("lora")
    quiet = train(request)
    assert "update 1 of 6" not in capsys.readouterr().err
    monkeypatch.setattr(progress, "WRITE_EVERY_S", 0.0)
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    seen = []
    write = Path.write_text
    monkeypatch.setattr(
        Path, "write_text", lambda file, text, **options: (seen.append(text), write(file, text, **options))[1]
    )  # fmt: skip
    with progress.reported(request):
        loud = train(request)
    assert reproducible(loud) == reproducible(quiet)

    log = capsys.readouterr().err
    lines = re.findall(r"^update (\d) of 6, epoch (\S+), (.*)$", log, re.MULTILINE)
    # 200 examples and batches of 16 make 13 updates an epoch.
    expected = [(str(update), f"{update / 13:.4g}") for update in range(1, 7)]
    assert [line[:2] for line in lines] == expected
    history = loud["history"]
    assert [row["update"] for row in history] == [0, 3, 6]
    for update, row in ((1, history[0]), (3, history[0]), (4, history[1])):
        assert f"selection_loss_nats {row['selection_loss_nats']:.4g}" in lines[update - 1][2]
    # Update 3 is the last before the second evaluation, so its mean is that of the history.
    assert f"train_loss_nats {history[1]['train_loss_nats']:.4g}" in lines[2][2]
    for words in ("loading the model tiny", "loading the dataset generated_reviews",
                  "training on 200 examples", "evaluating on the selection slice, batch 1 of 2",
                  "evaluating on the reported split, batch 1 of 2"):  # fmt: skip
        assert words in log

    records = [json.loads(text) for text in seen if '"pid"' in text]
    last = [each["numbers"] for each in records if each["numbers"]][-1]
    assert (last["update"], last["updates"]) == (6, 6)
    loss = history[2]["train_loss_nats"]
    assert last["train_loss_nats"] == pytest.approx(loss, rel=1e-6)
    assert list(Path("results/.progress").glob("*.json")) == []


def test_a_pre_training_is_reported(
    inputs, request_of, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    request_of("full")  # goes to the folder with the inputs
    reset_accelerate()
    pretrain(inputs[1].input_request("model", "tiny"), tmp_path)
    log = capsys.readouterr().err
    assert "reading the corpus generated_text" in log
    assert "pre-training on 1,100 examples" in log  # 1,500 texts, 400 of them held out


def test_what_reports_is_no_source_of_a_result(request_of) -> None:
    """So a change of its wording reruns nothing."""
    code = request_of("lora")["code"]
    assert "rankwise.training.loop" in code
    assert {"rankwise.core.progress", "rankwise.core.tracker"}.isdisjoint(code)


# Trackers -----------------------------------------------------------------------------------------


def test_tensorboard_has_a_run_a_cell(
    request_of, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="trackers are optional")
    from tensorboard.backend.event_processing.event_accumulator import (
        EventAccumulator,
    )

    monkeypatch.setenv("RANKWISE_TRACKER", "tensorboard")
    monkeypatch.setenv("RANKWISE_STUDY", "mine")
    results = {method: train(request_of(method)) for method in ("full", "lora")}
    folder = Path("logs/tracking/mine/tiny/generated_reviews")
    ranks = {"full": 0, "lora": 4}
    names = {m: f"{m} r{ranks[m]} seed0 {digits(request_of(m))}" for m in ranks}
    events = sorted(file.parent for file in Path("logs/tracking").rglob("events.out.*"))
    assert events == [folder / names["full"], folder / names["lora"]]
    for method, result in results.items():
        run = EventAccumulator(str(folder / names[method]))
        run.Reload()
        scalars = run.Scalars("selection_loss_nats")
        assert [scalar.step for scalar in scalars] == [0, 3, 6]
        losses = [row["selection_loss_nats"] for row in result["history"]]
        assert [scalar.value for scalar in scalars] == pytest.approx(losses, rel=1e-6)
        for quantity in ("train_loss_nats", "gradient_norm", "learning_rate"):
            expected = [row[quantity] for row in result["history"] if quantity in row]
            scalars = run.Scalars(quantity)
            assert [scalar.value for scalar in scalars] == pytest.approx(expected, rel=1e-6)
        memory = [scalar.value for scalar in run.Scalars("peak_resident_bytes")]
        assert memory == sorted(memory) and len(memory) == 3
        assert 2**27 < memory[0] <= memory[-1] < 2**36  # torch alone has more than 128 MiB


def train_with(
    package: str, request: dict, folder: Path
) -> tuple[subprocess.CompletedProcess, list]:
    """Train in a process that has a stand-in for a tracker's package, and what it was told."""
    information = folder / f"{package}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (folder / f"{package}.py").write_text(STAND_IN)
    (folder / "request.json").write_text(json.dumps(request))
    variables = {
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "src")]),
        "NOTES": str(folder / "notes"),
        "RANKWISE_TRACKER": package,
        "RANKWISE_STUDY": "mine",
    }
    command = [sys.executable, "-c", TRAIN, str(folder / "request.json")]
    done = subprocess.run(
        command, env={**CLEAN, **variables}, capture_output=True, text=True, check=False
    )
    notes = (folder / "notes").read_text().splitlines()
    return done, [json.loads(note) for note in notes]


@pytest.mark.slow
@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_other_trackers_get_a_named_run(package: str, request_of, tmp_path: Path) -> None:
    request = request_of("lora")
    done, notes = train_with(package, request, tmp_path)
    assert done.returncode == 0, done.stderr
    options = notes[0][1]
    assert options["project"] == "mine"
    assert options["name"] == f"tiny/generated_reviews/lora r4 seed0 {digits(request)}"
    assert options["group"] == "tiny/generated_reviews/lora"
    assert options["resume"] == "allow"  # a resumed training goes on in its run
    (config,) = [note[1] for note in notes if note[0] == "config"]
    assert (config["method"], config["seed"]) == ("lora", 0)
    assert config["learning_rate"] == request["method"]["learning_rate"]
    losses = {note[1]: note[2]["selection_loss_nats"] for note in notes if note[0] == "log"}
    history = json.loads(done.stdout.splitlines()[-1])["history"]
    rates = {note[1]: note[2]["learning_rate"] for note in notes if note[0] == "log"}
    assert rates == {row["update"]: row["learning_rate"] for row in history}
    assert losses == {row["update"]: row["selection_loss_nats"] for row in history}
    assert notes[-1] == ["finish"]


@pytest.mark.slow
def test_a_run_that_diverges_is_finished_for_its_tracker(request_of, tmp_path: Path) -> None:
    request = request_of("full")
    request["method"]["learning_rate"] = 1e30
    done, notes = train_with("wandb", request, tmp_path)
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "diverged"
    assert notes[-1] == ["finish"]


def test_a_tracker_that_is_not_installed_where_the_job_runs(
    request_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    """accelerate would go on without it, and without a word."""
    monkeypatch.setenv("RANKWISE_TRACKER", "wandb")
    message = "tracker: got wandb, but the package wandb is not installed where the job runs"
    with pytest.raises(ValueError, match=message):
        train(request_of("full"))
