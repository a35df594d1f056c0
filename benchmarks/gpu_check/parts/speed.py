"""Seconds a step, beside bare peft, the Trainer of transformers, and galore-torch.

The steps of LoRA are of one model on one batch; the calls take turns, so that a drift of the
machine meets all of them. The two loops train on the same examples with the same schedule, one
after the other, and their time is that of the whole training without evaluations.
"""

import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from benchmarks.gpu_check import cases, texts, workers
from benchmarks.gpu_check.runner import Check
from rankwise.measure import step as steps
from rankwise.models import build

GRID = {"models": ["distilbert"], "datasets": ["sst2"], "methods": ["lora"], "ranks": [16],
        "batch_size": 32, "sequence_length_tokens": 128}  # fmt: skip
REPEATS, WARMUP = 30, 3
UPDATES, TOKENS = 100, 64  # of the two loops
SCHEDULE = {"updates": UPDATES, "batch_size": 16, "evaluate_every_updates": UPDATES,
            "eval_batch_size": 16, "warmup_fraction": 0.0, "max_gradient_norm": 1.0}  # fmt: skip


def run(check: Check) -> None:
    """Send a row for each comparison."""
    comparisons = {
        # First, because its processes are forks, and the others start CUDA in this one.
        ("training loop, LoRA", "Trainer of transformers"): _against_trainer,
        ("step of LoRA", "bare peft"): _against_peft,
        ("step of ProjectedAdam", "GaLoreAdamW of galore-torch"): _against_galore,
    }
    for (ours, other), compare in comparisons.items():
        check.attempt({"ours": ours, "other": other}, functools.partial(compare, check))


# A step -------------------------------------------------------------------------------------------


def _against_peft(check: Check) -> dict:
    grid = {**GRID, "device": check.device}
    if check.rehearse:
        grid = cases.rehearsed(grid)
    (request,) = cases.profiles("throughput", grid)
    ours = steps.step(request, check.device)
    theirs = peft_step(request, check.device, ours.batch)
    times = interleaved(
        check.device, WARMUP if check.rehearse else REPEATS, ours=ours.run, theirs=theirs
    )
    return compared(times["ours"], times["theirs"])


def peft_step(request: dict, device: str, batch: dict[str, Tensor]) -> Callable[[], None]:
    """A step of LoRA by peft alone, with torch's AdamW.

    Args:
        request: A profile's, of the method LoRA.
        device: cpu or cuda.
        batch: Arguments of the model.
    """
    model = peft_model(request, device)
    trained = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)

    def call() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return call


def peft_model(request: dict, device: str) -> nn.Module:
    """LoRA on a model with random weights, as peft's documentation writes it.

    Args:
        request: Of the method LoRA, with `shapes`.
        device: cpu or cuda.
    """
    options, shapes = request["method"]["options"], request["shapes"]
    base = build.from_shapes(request["model"], shapes["task"], shapes["classes"], device)
    names = build.names(request["model"], shapes["task"])
    config = LoraConfig(
        r=options["rank"],
        lora_alpha=options["alpha"],
        lora_dropout=options["dropout"],
        target_modules=[names["modules"][role]["name"] for role in options["targets"]],
        modules_to_save=names["new_head"],
    )
    return get_peft_model(base, config).train().to(device)


def interleaved(device: str, repeats: int, **calls: Callable[[], object]) -> dict[str, list[float]]:
    """Seconds of each repeat of each call; the calls take turns, after some to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(WARMUP + repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn >= WARMUP:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def compared(ours: list[float], theirs: list[float]) -> dict:
    """Medians, quartiles and their ratio."""
    medians = statistics.median(ours), statistics.median(theirs)
    return {
        "ours_s": medians[0],
        "other_s": medians[1],
        "ratio": medians[0] / medians[1],
        "repeats": len(ours),
        "quartiles": {
            "ours": statistics.quantiles(ours, n=4),
            "other": statistics.quantiles(theirs, n=4),
        },
    }


# A loop -------------------------------------------------------------------------------------------


def _request(check: Check) -> tuple[dict, int]:
    grid = {"models": ["distilbert"], "datasets": ["sst2"], "methods": ["lora"], "ranks": [16]}
    if not check.rehearse:
        return cases.training(grid, check.device, SCHEDULE), TOKENS
    grid |= {"models": ["tiny"], "datasets": ["generated_reviews"]}
    schedule = {**SCHEDULE, "updates": 6, "evaluate_every_updates": 6, "batch_size": 4}
    return cases.training(grid, check.device, schedule), 16


def _train(request: dict, tokens: int) -> float:
    # It may bring a stand-in, which is for this process alone.
    from benchmarks.gpu_check import training  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        training.train(_shortened(request), tokens)
        seconds = training.train(request, tokens).cost["step_time_s"]
        os.chdir(cases.ROOT)
        return seconds


def _shortened(request: dict) -> dict:
    """The request of a run that warms the device up."""
    return {**request, "schedule": {**request["schedule"], "updates": WARMUP}}


def _against_trainer(check: Check) -> dict:
    """Seconds of an update of our training loop, and of the Trainer."""
    request, tokens = _request(check)
    seconds = []
    for train in (_train, _trainer):
        worker = workers.start(train, request, tokens)
        seconds.append(workers.answer(worker, check.seconds_left()))
    ours_s, other_s = seconds
    return {
        "ours_s": ours_s,
        "other_s": other_s,
        "ratio": ours_s / other_s,
        "repeats": request["schedule"]["updates"],
    }


def _trainer(request: dict, tokens: int) -> float:
    """Seconds of an update of transformers' Trainer."""
    schedule, device = request["schedule"], request["device"]
    shapes = {"task": request["dataset"]["task"], "classes": len(request["dataset"]["classes"])}
    model = peft_model({**request, "shapes": shapes}, device)
    trained_on = texts.examples(request, tokens)
    with tempfile.TemporaryDirectory() as folder:
        for updates in (WARMUP, schedule["updates"]):
            arguments = transformers.TrainingArguments(
                output_dir=folder,
                max_steps=updates,
                per_device_train_batch_size=schedule["batch_size"],
                learning_rate=1e-5,
                max_grad_norm=schedule["max_gradient_norm"],
                optim="adamw_torch",
                use_cpu=device == "cpu",
                logging_strategy="no",
                save_strategy="no",
                report_to=[],
                remove_unused_columns=False,
                disable_tqdm=True,
            )
            trainer = transformers.Trainer(
                model=model,
                args=arguments,
                train_dataset=trained_on,
                data_collator=texts.collate(request),
            )
            result = trainer.train()
    return result.metrics["train_runtime"] / schedule["updates"]


# An optimizer -------------------------------------------------------------------------------------


def _against_galore(check: Check) -> dict:
    """A step between two refreshes, of all matrices of DistilBERT's blocks."""
    from benchmarks import optimizers  # noqa: PLC0415 - needs galore-torch

    shapes = [(64, 64)] * 4 if check.rehearse else optimizers.SHAPES
    (_, ours_s, other_s), (_, _, adamw_s) = optimizers.step(check.device, shapes)
    return {
        "ours_s": ours_s,
        "other_s": other_s,
        "ratio": ours_s / other_s,
        "adamw_of_torch_s": adamw_s,
    }
