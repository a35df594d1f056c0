"""The one training loop, on accelerate. It knows no method and no task by name.

The loop trains, evaluates on the selection split as it goes, and ends with one evaluation on the
reported split. A run that was interrupted resumes from its checkpoint.

With several processes, all of them read the same batches, and each trains on its own rows: the
schedule's batch size is that of all processes together. They share the batches of an evaluation,
unless each holds a share of the model (FSDP2). The first one writes checkpoints, logs and results.
"""

import importlib
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from transformers import get_scheduler

from rankwise.core import progress
from rankwise.core.tracker import Tracking, memory
from rankwise.data.order import GROUPED, order
from rankwise.data.prepared import Data
from rankwise.methods.parts.base import Method
from rankwise.training import evaluation
from rankwise.training.batches import ResumableBatches
from rankwise.training.checkpoint import (
    Checkpoint,
    Stopped,
    random_states,
    restore_random_states,
    trained_state,
)
from rankwise.training.distribution import (
    Distributed,
    own_state,
    restore_model,
    restore_optimizer,
)
from rankwise.training.divergence import Diverged, Watch, check_finite
from rankwise.training.progress import Sums, TrainingState, UpdatePlan
from rankwise.training.updates import Updater

# Imported by name, so that runs without them do not depend on them.
CHUNKED_LOSS = "rankwise.models.chunked_loss"
LOSS_SCALING = "rankwise.training.loss_scaling"
MIXED_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}  # our names -> those of accelerate


class Loop:
    """Train a model, evaluate it and report its scores.

    Args:
        model: Already adapted by `method`; its trainable parameters require gradients.
        method: Called after each update, and for what it adds to the history.
        data: The encoded splits.
        schedule: The resolved schedule of the run's request.
        device: "cpu", or anything else for what accelerate finds.
        checkpoint: Entered by the caller, around the whole run.
        tracking: How an experiment tracker follows the run.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        data: Data,
        schedule: dict,
        device: str,
        checkpoint: Checkpoint,
        tracking: Tracking,
    ):
        self.method = method
        self.data = data
        self.schedule = schedule
        self.checkpoint = checkpoint
        self.group = checkpoint.group
        self.group.join(device)
        self.accelerator = Accelerator(
            cpu=device == "cpu",
            mixed_precision=MIXED_PRECISION[schedule["precision"]],
            step_scheduler_with_optimizer=False,
            log_with=tracking.log_with if self.group.is_first else None,
            project_dir=tracking.folder,
        )
        if schedule["precision"] == "fp16":
            importlib.import_module(LOSS_SCALING).on_every_device(self.accelerator)
        self.accelerator.init_trackers(tracking.project, tracking.config, tracking.options)
        if schedule.get("loss", "full") != "full":
            importlib.import_module(CHUNKED_LOSS).use(model, schedule["loss"])
        self.distributed = Distributed(model, self.accelerator, schedule["sharding"])
        self.model = self.distributed.model
        self.state = TrainingState()
        self.effective_rank: Callable[[], float | None] | None = None
        self.scaling: Any = None  # loss_scaling.Scaling, while something trains in fp16
        self.saved_update: int | None = None  # the update after which the checkpoint was written
        self.watch: Watch | None = None  # None while nothing trains
        self.padding: dict[str, int] = {}  # of an epoch, where batches are grouped by length
        self.started = time.perf_counter()

    def run(self, optimizer: torch.optim.Optimizer | None, seed: int) -> dict:
        """Train, then evaluate the selected state on the reported split.

        Args:
            optimizer: Over the trainable parameters, or None if there are none: the model is then
                only evaluated.
            seed: The random seed of the order of the training examples.

        Returns:
            `metrics` (of the reported split, and counts), `history` (one row per evaluation),
            `examples` (a score per example of the reported split) and `cost` (seconds and bytes).

        Raises:
            Stopped: The process was told to stop; the run's checkpoint is written.
            Diverged: The loss, the gradient or a metric is no longer finite.
        """
        try:
            return self._run(optimizer, seed)
        finally:
            # A job ends without the exit handlers that would do so. accelerate's `end_training`
            # would also leave the process group. The last reference to it would then go with the
            # model, in whatever order; the group would wait for its threads there, and these may
            # wait for Python's lock.
            for tracker in self.accelerator.trackers:
                tracker.finish()

    def _run(self, optimizer: torch.optim.Optimizer | None, seed: int) -> dict:
        self.started = time.perf_counter()
        if self._on_gpu():
            torch.cuda.reset_peak_memory_stats()
        if optimizer is None:
            self._evaluate(epoch=0.0)
        else:
            self._train(optimizer, seed)
        train_seconds = self._elapsed() - self.state.evaluation_seconds
        self.state.restore_best(self.model)
        # No stop is obeyed from here on: this evaluation is the last thing to do.
        examples = self._scores(self.data.report, "the reported split")
        metrics = evaluation.metrics(examples, self.data.task.METRICS)
        check_finite(metrics, "reported split", self.state.updates)
        return {
            **evaluation.left_out(metrics, self.data.task.METRICS),
            "metrics": {**metrics, **self.state.counts},
            "history": self.state.history,
            "examples": examples,
            "cost": self._cost(train_seconds),
        }

    def _train(self, optimizer: torch.optim.Optimizer, seed: int) -> None:
        """Make all updates, or those that are left after the checkpoint."""
        shuffling = torch.Generator().manual_seed(seed)
        loader = DataLoader(
            self.data.train,
            generator=shuffling,
            collate_fn=self.data.collate,
            **order(self.data.train, self.schedule, shuffling),
        )
        self.padding = self._padding(loader, seed)
        plan = UpdatePlan.from_schedule(self.schedule, len(loader))
        self.effective_rank = getattr(optimizer, "effective_rank", None)
        released = getattr(optimizer, "released", False)
        if self.group.count > 1:
            collate = deepcopy(self.data.collate)  # it may draw, and training draws from its own
            example = collate([next(iter(self.data.train))])
            self.distributed.train_with(optimizer, self.method, example)
        if getattr(optimizer, "FORWARD_ONLY", False):
            self.accelerator.scaler = None  # it has no gradients
        # Only the optimizer: each process takes its own part of every batch (updates.py).
        optimizer = self.accelerator.prepare(optimizer)
        if self.accelerator.scaler is not None:
            scaling = importlib.import_module(LOSS_SCALING)
            self.scaling = scaling.Scaling(self.accelerator, optimizer)
        warmup_updates = round(plan.total * self.schedule["warmup_fraction"])
        scheduler = get_scheduler(self.schedule["scheduler"], optimizer, warmup_updates, plan.total)
        position = self._resume(optimizer.optimizer, scheduler)
        generators = [shuffling, *_generators(self.data.collate)]
        batches = ResumableBatches(loader, generators, position)
        self.watch = Watch(self.model, released)
        updater = Updater(
            self.accelerator,
            self.distributed,
            optimizer,
            self.data.task.predictions,
            self.schedule["max_gradient_norm"],
            self.watch,
            self.scaling,
        )
        try:
            self._make_updates(plan, batches, updater, scheduler)
        except Stopped:
            self._save(optimizer.optimizer, scheduler, batches)
            raise
        if self.state.steps == 0:
            self._refuse_no_step()
        if self.saved_update != plan.total and self.checkpoint.is_due_at_end():
            self._save(optimizer.optimizer, scheduler, batches)

    def _padding(self, loader: DataLoader, seed: int) -> dict[str, int]:
        """The padding of an epoch, where batches are grouped by length."""
        if not self.schedule.get("group_by_length"):
            return {}
        grouped = importlib.import_module(GROUPED)
        lengths = loader.batch_sampler.lengths
        return grouped.padding_of_an_epoch(lengths, self.schedule["batch_size"], seed)

    def _make_updates(
        self, plan: UpdatePlan, batches: ResumableBatches, updater: Updater, scheduler: LRScheduler
    ) -> None:
        # A loaded model is in evaluation mode. Evaluating it would end that mode, but a resumed run
        # may train before it evaluates.
        self.model.train()
        self._between_updates(plan)
        steps = progress.Steps(
            "update", "updates", plan.total, self.state.updates, lambda: self._numbers(plan)
        )
        optimizer = updater.optimizer.optimizer
        while self.state.updates < plan.total:
            for window in batches.windows(self.schedule["accumulation_steps"]):
                self._update(window, updater, scheduler)
                steps.made(self.state.updates)
                self._between_updates(plan)
                if self.checkpoint.is_due():
                    self._save(optimizer, scheduler, batches)
                if self.state.updates == plan.total:
                    break

    def _numbers(self, plan: UpdatePlan) -> dict[str, float]:
        """The epoch and the current losses, for the log."""
        losses = self.state.losses() if self.group.count == 1 else {}
        return {"epoch": self.state.updates / plan.per_epoch, **losses}

    def _update(self, window: list[dict], updater: Updater, scheduler: LRScheduler) -> None:
        """Make one update.

        Raises:
            Diverged: It fails because a loss, a gradient or a parameter is not finite.
        """
        number = self.state.updates + 1
        try:
            made = updater.make(window, number)
            if not made.skipped:
                step = self.state.steps + 1
                self.method.after_step(self.model, updater.optimizer.optimizer, step)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ArithmeticError, ValueError):
            self.watch.check_after_error(number)
            raise
        self.state.add(made, learning_rate=scheduler.get_last_lr()[0])
        if not made.skipped:
            scheduler.step()

    def _refuse_no_step(self) -> None:
        """Called if no update was made.

        Raises:
            Diverged: Always.
        """
        updates = self.state.updates
        raise Diverged(
            f"update {updates}: in fp16 every update so far was skipped, because a gradient was "
            f"not finite; the loss is scaled by {self.scaling.scale:,.0f} now, and each skipped "
            "update halves that; make more updates, or compute in bf16 or fp32",
            updates,
            "gradient",
        )

    def _between_updates(self, plan: UpdatePlan) -> None:
        """Called before the first update and after each one: evaluate if due, then stop if told to.

        An evaluation that a stop interrupted is done again after the resume. One that was finished
        is in the history and is not repeated.
        """
        update = self.state.updates
        history = self.state.history
        is_done = bool(history) and history[-1]["update"] == update
        if plan.evaluates_after(update) and not is_done:
            self._evaluate(update / plan.per_epoch)
        self.checkpoint.check()

    def _evaluate(self, epoch: float) -> None:
        """Evaluate on the selection split and record one row of the history.

        The parameters are kept if they are the best so far. The sums begin anew.
        """
        start = time.perf_counter()
        update = self.state.updates
        if self.watch is not None:
            self.watch.check()
            self.watch.check_parameters(update)
        training = self._training_measures(update)
        scores = self._scores(self.data.selection, "the selection slice", self.checkpoint.check)
        metrics = evaluation.metrics(scores, self.data.task.METRICS)
        selection = {}
        for name, value in metrics.items():
            selection[f"selection_{name.removeprefix('eval_')}"] = value
        row = {
            "epoch": epoch,
            "update": update,
            "learning_rate": self.state.learning_rate,
            **training,
            **selection,
        }
        self.state.history.append(row)
        shown = {"learning_rate": self.state.learning_rate, **memory(self._peak_bytes())}
        self.accelerator.log({**training, **selection, **shown}, step=update)
        if self.group.is_first:
            _print_row(row)
        check_finite(metrics, "selection slice", update)
        if self.schedule["select"] == "best":
            self.state.keep_if_best(self.model, metrics["eval_loss_nats"])
        self.state.sums = Sums()
        self.state.evaluation_seconds += time.perf_counter() - start

    def _training_measures(self, update: int) -> dict[str, float]:
        """Means since the last evaluation, and what the optimizer and the method report."""
        measures: dict[str, float] = {}
        if update:
            measures |= self._sums_of_all().means(update)
            has_stepped = self.state.steps > 0  # all updates so far may be skipped
            rank = self.effective_rank() if self.effective_rank and has_stepped else None
            if rank is not None:
                measures["effective_rank"] = rank
        return measures | self.method.observe(self.model)

    def _sums_of_all(self) -> Sums:
        """The sums with the losses of all processes."""
        sums = self.state.sums
        if self.group.count == 1:
            return sums
        return replace(sums, loss=sum(self.group.gathered(float(sums.loss))))

    def _scores(
        self, examples: list[dict], split: str, before_batch: Callable[[], None] | None = None
    ) -> evaluation.Scores:
        with progress.during(f"evaluating on {split}"):
            return evaluation.evaluate(
                self.model,
                self.data,
                examples,
                self.schedule["eval_batch_size"],
                self.accelerator.device,
                before_batch,
                None if self.distributed.is_sharded else self.group,
            )

    def _cost(self, train_seconds: float) -> dict[str, float]:
        """Seconds, throughput and peak memory of the run; evaluations are not in `train_time_s`."""
        counts = self.state.counts
        cost = {
            "train_time_s": train_seconds,
            "evaluation_time_s": self.state.evaluation_seconds,
            **self.padding,
        }
        if counts["updates"]:
            cost["step_time_s"] = train_seconds / counts["updates"]
            cost["throughput_samples_per_s"] = counts["samples"] / train_seconds
        if self._on_gpu():
            cost["peak_allocated_bytes"] = self._peak_bytes()
        return cost

    def _elapsed(self) -> float:
        """Run time in seconds, over all interruptions."""
        return self.state.earlier_seconds + time.perf_counter() - self.started

    def _peak_bytes(self) -> int:
        """Peak of allocated GPU memory, over all interruptions; 0 on the CPU.

        Of several processes, that of the one with the highest.
        """
        if not self._on_gpu():
            return 0
        own_peak = max(self.state.earlier_peak_bytes, torch.cuda.max_memory_allocated())
        return max(self.group.gathered(own_peak))

    def _on_gpu(self) -> bool:
        return self.accelerator.device.type == "cuda"

    def _save(
        self,
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler,
        batches: ResumableBatches,
    ) -> None:
        """Write the checkpoint.

        Raises:
            Diverged: A loss or a gradient was not finite; there is nothing to resume.
        """
        self.watch.check()
        state = self.state.as_saved(self._elapsed(), self._peak_bytes())
        own = {"random_states": random_states(), "loss": state["sums"]["loss"]}
        weights = {
            "model": own_state(trained_state(self.model)),
            "optimizer": own_state(optimizer.state_dict()),
            "best_parameters": state.pop("best_parameters"),
        }
        if self.distributed.is_sharded:  # else those of the first process are those of all
            own |= weights
        contents = {
            "update": self.state.updates,
            "scheduler": scheduler.state_dict(),
            "scaling": self.scaling.state() if self.scaling else None,
            "position": batches.position,
            "state": state,
            "processes": self.group.collected(own),
            **({} if self.distributed.is_sharded else weights),
        }
        self.checkpoint.save(contents)
        self.saved_update = self.state.updates

    def _resume(self, optimizer: torch.optim.Optimizer, scheduler: LRScheduler) -> dict | None:
        """Restore everything that the checkpoint holds.

        Returns:
            The position among the batches, or None if there is no checkpoint.
        """
        saved = self.checkpoint.load()
        if saved is None:
            return None
        own = saved["processes"][self.group.index]
        # The method comes first: it may change the shapes into which the state is then loaded.
        counts = saved["state"]["counts"]
        self.method.resume(self.model, TrainingState(counts=counts).steps)
        if self.distributed.is_sharded:
            restore_model(self.model, own["model"])
            restore_optimizer(optimizer, own["optimizer"])
        else:
            # Not strict, because the checkpoint leaves the frozen parameters out.
            self.model.load_state_dict(saved["model"], strict=False)
            optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        if self.scaling:
            self.scaling.restore(saved["scaling"])
        best = {**saved, **own}["best_parameters"]
        self.state = TrainingState.from_saved({**saved["state"], "best_parameters": best})
        self.state.sums.loss = own["loss"]
        restore_random_states(own["random_states"])
        return saved["position"]


def _generators(collate: Callable) -> list[torch.Generator]:
    """The random generators that a collate object draws from."""
    return [value for value in vars(collate).values() if isinstance(value, torch.Generator)]


def _print_row(row: dict[str, float]) -> None:
    """Write a row of the history to the job's log."""
    values = ", ".join(f"{name} {value:.6g}" for name, value in row.items())
    progress.say(values)
