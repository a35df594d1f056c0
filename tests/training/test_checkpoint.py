"""A run that was interrupted and resumed gives the same result, to the bit, as one that was not."""

import copy
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from helpers.conformance import UNSUPPORTED, one_of_each_kind
from helpers.disks import small_disk
from helpers.prepared import folder, prepare, record_model, reset_accelerate
from helpers.repository import ROOT, edit
from helpers.stopping import interrupted, stop_at_check
from rankwise.core.paths import CHECKPOINTS
from rankwise.study.plan import Plan
from rankwise.training import checkpoint, evaluation, pretrain, state_files
from rankwise.training import run as training
from rankwise.training.checkpoint import Checkpoint, Stopped
from rankwise.training.updates import Made, Updater

# Every method, with settings that make rare events (a new projection, a truncation) happen within 20
# updates.
SMOKE = yaml.safe_load((ROOT / "config/methods_smoke.yaml").read_text())

# 100 examples are 7 micro-batches an epoch, so an epoch ends within a window of accumulation.
REVIEWS = {"train": 200, "validation": 100}
SELECTION_ROWS = 100
SCHEDULE = {
    "updates": 20,
    "batch_size": 16,
    "accumulation_steps": 2,
    "eval_batch_size": 50,
    "evaluate_every_updates": 6,
}

# Checks for a stop after each start of the run. They stop it within the first evaluation, after some
# updates, within a later evaluation, and within the epoch that follows.
STOPS = [1, 9, 6, 5]

NOT_TRAINED_HERE = ("frozen", *(name for name, model in UNSUPPORTED if model == "tiny"))
FAST = [
    "full",
    "sparse_lora",  # its mode changes during training
    "weight_reduction_shrunk",  # its shapes change during training
    "rsvd_released",  # projects inside backward, with random draws of its own
    "badam",  # what requires gradients changes during training
]
ENTRIES = yaml.safe_load((ROOT / "config/methods.yaml").read_text())
METHODS = list(dict.fromkeys([*FAST, *one_of_each_kind(ENTRIES)]))
# Optimizers that step inside backward cannot clip gradients, and those without gradients have none to
# clip; all others are clipped here.
UNCLIPPED = ["full_released", "lomo", "adalomo", "mezo", "lora_mezo"]
GRIDS = [
    {
        **SMOKE["train"][0],
        "methods": [name for name in METHODS if name not in UNCLIPPED],
        "schedule": {"max_gradient_norm": 1.0},
    },
    {**SMOKE["train"][0], "methods": UNCLIPPED},
]
SLOW = [name for name in METHODS if name not in (*FAST, *NOT_TRAINED_HERE)]


DROPOUT = {"dropout": 0.2}  # of the base, in its config.json and in its entry


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """A folder with inputs, and the plan of a run for each method; the base has dropout."""
    root = tmp_path_factory.mktemp("inputs")
    override = {name: changes for name, changes in SMOKE["override"].items() if name in METHODS}
    study = {**SMOKE, "override": override, "train": GRIDS, "profile": []}
    plan = Plan(study, ROOT, "config/methods_smoke.yaml")
    prepare(plan, root, review_rows=REVIEWS, selection_rows=SELECTION_ROWS)
    model = folder(root, plan, "model", "tiny")
    edit(model / "config.json", '"dropout": 0.0', f'"dropout": {DROPOUT["dropout"]}')
    record_model(model)
    return root, plan


@pytest.fixture
def run(prepared: tuple[Path, Plan], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """Train one method in this process, from its checkpoint if there is one."""
    root, plan = prepared
    monkeypatch.chdir(root)

    def train(method: str, **changes: object) -> dict:
        cell = next(cell for cell in plan.cells("train") if cell.method == method)
        request = copy.deepcopy(plan.request("train", cell))
        steps_in_backward = request["schedule"]["max_gradient_norm"] is None
        request["schedule"] |= SCHEDULE
        request["model"]["architecture"] |= DROPOUT
        if steps_in_backward:  # such an optimizer cannot accumulate gradients
            request["schedule"]["accumulation_steps"] = 1
        request["method"] |= changes
        reset_accelerate()
        return training.train(request)

    return train


@pytest.fixture(scope="module")
def uninterrupted_lora(prepared: tuple[Path, Plan]) -> dict:
    """The result of an uninterrupted LoRA run."""
    root, plan = prepared
    cell = next(cell for cell in plan.cells("train") if cell.method == "lora")
    request = copy.deepcopy(plan.request("train", cell))
    request["schedule"] |= SCHEDULE
    request["model"]["architecture"] |= DROPOUT
    reset_accelerate()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return training.train(request)


def reproducible(result: dict) -> str:
    """The result as text, without its times."""
    return json.dumps(
        {name: part for name, part in result.items() if name != "cost"}, sort_keys=True
    )


@pytest.mark.parametrize(
    "method", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_an_interrupted_run_gives_the_same_result(method: str, run) -> None:
    expected = run(method)
    assert expected.get("status", "ok") == "ok"
    assert reproducible(interrupted(lambda: run(method), STOPS)) == reproducible(expected)
    assert not list(CHECKPOINTS.iterdir())


def test_an_interrupted_pre_training_gives_the_same_result(
    prepared: tuple[Path, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The masks are drawn batch by batch, so a resume draws those of the used batches again."""
    root, plan = prepared
    monkeypatch.chdir(root)
    request = copy.deepcopy(plan.input_request("model", "tiny"))
    request["model"]["weights"]["pretrain"]["schedule"] |= {"updates": 16}

    def pretrained(name: str) -> dict:
        (tmp_path / name).mkdir(exist_ok=True)
        reset_accelerate()
        return pretrain.pretrain(request, tmp_path / name)

    result = interrupted(lambda: pretrained("stopped"), [12, 7])
    assert reproducible(result) == reproducible(pretrained("whole"))


def test_a_killed_run_resumes_from_its_last_checkpoint(
    run, uninterrupted_lora: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a checkpoint after every update, a run that dies after 7 updates repeats none of them."""
    monkeypatch.setattr(checkpoint, "SAVE_EVERY_S", 0)
    save = Checkpoint.save
    saved = []

    def die_at_the_eighth(self: Checkpoint, contents: dict) -> None:
        if len(saved) == 7:
            raise KeyboardInterrupt
        saved.append(contents["update"])
        save(self, contents)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "save", die_at_the_eighth)
        with pytest.raises(KeyboardInterrupt):
            run("lora")
    saved_later = []

    def record(_self: Checkpoint, contents: dict) -> None:
        saved_later.append(contents["update"])

    monkeypatch.setattr(Checkpoint, "save", record)
    assert reproducible(run("lora")) == reproducible(uninterrupted_lora)
    assert saved == list(range(1, 8))
    assert saved_later == list(range(8, 21))


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def of_another_run(file: Path) -> None:
    another = file.with_name("0123456789abcdef.pt")
    with another.open("wb") as stream:
        state_files.save({"update": 3}, stream, another)
    another.replace(file)


@pytest.mark.parametrize(("damage", "said"), [
    (flip, "its content was changed since it was written"),
    (cut, "it was cut short or changed"),
    (of_another_run, "it was written as 0123456789abcdef.pt, the state of another run"),
])  # fmt: skip
def test_a_damaged_checkpoint_is_moved_aside_and_the_run_starts_anew(
    damage: Callable[[Path], None],
    said: str,
    run,
    uninterrupted_lora: dict,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_at_check(9, patch)
        with pytest.raises(Stopped):
            run("lora")
    (file,) = CHECKPOINTS.iterdir()
    damage(file)
    damaged = file.read_bytes()
    capsys.readouterr()
    assert reproducible(run("lora")) == reproducible(uninterrupted_lora)
    (aside,) = CHECKPOINTS.iterdir()
    assert aside.name == f"{file.name}.damaged"
    assert aside.read_bytes() == damaged
    aside.unlink()
    lines = [line for line in capsys.readouterr().err.splitlines() if str(file) in line]
    assert lines[0].startswith(f"{file}: {said}")
    assert lines[0].endswith(f"moved aside to {aside.name}, and the training starts anew")


def test_a_stop_during_the_last_evaluation_is_ignored(
    run, uninterrupted_lora: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reported split is evaluated last, so the run ends soon and keeps its result."""
    evaluate = evaluation.evaluate
    selection_evaluations = len(uninterrupted_lora["history"])
    calls = 0

    def evaluate_with_signal(*arguments: object, **options: object) -> dict:
        nonlocal calls
        calls += 1
        if calls == selection_evaluations + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(evaluation, "evaluate", evaluate_with_signal)
    assert reproducible(run("lora")) == reproducible(uninterrupted_lora)
    assert calls == selection_evaluations + 1


def test_times_add_up_over_interruptions(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that advances by one second at every look, the resumed run counts both parts."""
    from rankwise.training import loop

    class Clock:
        seconds = 0.0

        def perf_counter(self) -> float:
            self.seconds += 1
            return self.seconds

    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    cost = interrupted(lambda: run("full"), [12])["cost"]
    # Evaluations are after updates 0, 6, 12, 18 and 20. Each looks at its beginning and at its end.
    assert cost["evaluation_time_s"] == 5
    # The first part stops after update 7: it looks at its beginning, 2 * 2 times, and at its end,
    # which are 5 s. The second part likewise has 1 + 3 * 2 + 1 looks, which are 7 s.
    assert cost["train_time_s"] == 5 + 7 - 5


def test_a_diverged_run_is_a_result_and_leaves_no_checkpoint(
    run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_EVERY_S", 0)
    result = run("full", learning_rate=1e30)
    assert result["status"] == "diverged"
    update, parameter = result["diverged"]["update"], result["diverged"]["parameter"]
    assert result["reason"].startswith(f"update {update}: the gradient of {parameter} is not ")
    assert not list(CHECKPOINTS.iterdir())


def test_a_run_out_of_host_memory_is_a_result(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator refuses a real request, in the third update."""
    make = Updater.make

    def make_or_ask_for_too_much(self: Updater, window: list[dict], number: int) -> Made:
        if number == 3:
            torch.empty(10**14)
        return make(self, window, number)

    monkeypatch.setattr(Updater, "make", make_or_ask_for_too_much)
    result = run("lora")
    assert result["status"] == "out_of_memory"
    assert "you tried to allocate 400000000000000 bytes" in result["reason"]


def test_a_full_disk_is_a_warning_and_the_training_goes_on(
    run, uninterrupted_lora: dict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The earlier checkpoint stays, and no part. The disk is filled before the second one."""
    monkeypatch.setattr(checkpoint, "SAVE_EVERY_S", 0)
    with small_disk(Path.cwd() / CHECKPOINTS, "400k") as folder:
        save, saves = Checkpoint.save, []
        kept = []

        def save_on_a_full_disk(self: Checkpoint, contents: dict) -> None:
            if saves:
                kept.append(self.file.read_bytes())
            if len(saves) == 1:
                (folder / "other").write_bytes(b"0" * shutil.disk_usage(folder).free)
            saves.append(contents["update"])
            save(self, contents)

        monkeypatch.setattr(Checkpoint, "save", save_on_a_full_disk)
        assert reproducible(run("lora")) == reproducible(uninterrupted_lora)
        assert saves == list(range(1, 21))
        assert len(set(kept)) == 1
        assert [path.name for path in folder.iterdir()] == ["other"]
    warnings = [line for line in capsys.readouterr().err.splitlines() if ": warning: " in line]
    assert len(warnings) == 19
    assert warnings[0].endswith(
        ": warning: No space left on device; the earlier one stays; no checkpoint written after "
        "update 2"
    )
