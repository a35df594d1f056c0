"""The one training loop, on accelerate. It knows no method and no task by name.

The loop trains, evaluates on the selection split as it goes, and ends with one evaluation on the
reported split. A run that was interrupted resumes from its checkpoint.

Only runs of a single process write checkpoints: with several processes, each has random states and
a position in the data of its own.
"""

import math
import sys
import time
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import get_scheduler

from rankwise.core import settings
from rankwise.core.errors import Unsupported
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
from rankwise.training.progress import Sums, TrainingState, UpdatePlan, check_finite

MIXED_PRECISION = {"fp32": "no", "bf16": "bf16"}  # our names -> those of accelerate


class Loop:
    """Train a model, evaluate it and report its scores.

    Args:
        model: Already adapted by `method`; its trainable parameters require gradients.
        method: Called after each update, and for what it adds to the history.
        data: The encoded splits.
        schedule: The resolved schedule of the run's request.
        device: "cpu", or anything else for what accelerate finds.
        checkpoint: Entered by the caller, around the whole run.
        tracking: The run's settings, for an experiment tracker (named by RANKWISE_TRACKER).
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        data: Data,
        schedule: dict,
        device: str,
        checkpoint: Checkpoint,
        tracking: dict,
    ):
        self.method = method
        self.data = data
        self.schedule = schedule
        self.checkpoint = checkpoint
        tracker = settings.read("RANKWISE_TRACKER")
        self.accelerator = Accelerator(
            cpu=device == "cpu",
            mixed_precision=MIXED_PRECISION[schedule["precision"]],
            gradient_accumulation_steps=schedule["accumulation_steps"],
            step_scheduler_with_optimizer=False,
            log_with=None if tracker == "none" else tracker,
            project_dir="logs/tracking",
        )
        self.accelerator.init_trackers("rankwise", config=tracking)
        self.model = self.accelerator.prepare_model(model)
        self.state = TrainingState()
        self.effective_rank: Callable[[], float | None] | None = None
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
            Unsupported: The optimizer cannot run on several processes.
        """
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
        examples = self._scores(self.data.report)
        metrics = evaluation.metrics(examples)
        check_finite(metrics, "reported split")
        self.accelerator.end_training()
        return {
            "metrics": {**metrics, **self.state.whole_counts()},
            "history": self.state.history,
            "examples": examples,
            "cost": self._cost(train_seconds),
        }

    def _train(self, optimizer: torch.optim.Optimizer, seed: int) -> None:
        """Make all updates, or those that are left after the checkpoint."""
        self._check_processes(optimizer)
        shuffling = torch.Generator().manual_seed(seed)
        loader = DataLoader(
            self.data.train,
            self.schedule["batch_size"],
            shuffle=True,
            generator=shuffling,
            collate_fn=self.data.collate,
        )
        plan = UpdatePlan.from_schedule(self.schedule, len(loader))
        self.effective_rank = getattr(optimizer, "effective_rank", None)
        optimizer, loader = self.accelerator.prepare(optimizer, loader)
        warmup_updates = round(plan.total * self.schedule["warmup_fraction"])
        scheduler = get_scheduler(self.schedule["scheduler"], optimizer, warmup_updates, plan.total)
        position = self._resume(optimizer.optimizer, scheduler)
        generators = [shuffling, *_generators(self.data.collate)]
        batches = ResumableBatches(loader, generators, position)
        try:
            self._make_updates(plan, batches, optimizer, scheduler)
        except Stopped:
            self._save(optimizer.optimizer, scheduler, batches)
            raise

    def _make_updates(
        self,
        plan: UpdatePlan,
        batches: ResumableBatches,
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler,
    ) -> None:
        bar = tqdm(
            total=plan.total,
            initial=self.state.updates,
            desc="updates",
            disable=not sys.stderr.isatty(),
        )
        # A loaded model is in evaluation mode. Evaluating it would end that mode, but a resumed run
        # may train before it evaluates.
        self.model.train()
        self._between_updates(plan)
        while self.state.updates < plan.total:
            for batch in batches.epoch():
                if self._micro_batch(batch, optimizer):
                    self.state.learning_rate = scheduler.get_last_lr()[0]
                    scheduler.step()
                    bar.update()
                    self._between_updates(plan)
                    if self.checkpoint.is_due():
                        self._save(optimizer.optimizer, scheduler, batches)
                if self.state.updates == plan.total:
                    break
        bar.close()

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

    def _micro_batch(self, batch: dict, optimizer: torch.optim.Optimizer) -> bool:
        """Forward and backward, and an optimizer step once enough micro-batches are accumulated.

        Returns:
            Whether the optimizer made a step.
        """
        state = self.state
        # Inside `accumulate`, accelerate scales the loss and turns `step` and `zero_grad` into
        # no-ops until the last micro-batch of an update.
        with self.accelerator.accumulate(self.model):
            loss = self.model(**batch).loss
            self.accelerator.backward(loss)
            stepped = self.accelerator.sync_gradients
            if stepped:
                state.sums.gradient_norm += self._clip(optimizer.optimizer)
            optimizer.step()
            optimizer.zero_grad()
        state.sums.loss += loss.detach()
        state.sums.micro_batches += 1
        state.counts["samples"] += len(batch["input_ids"])
        # The sum stays on the device; an int would make the CPU wait for the GPU.
        state.counts["tokens"] = state.counts["tokens"] + batch["attention_mask"].sum()
        if stepped:
            state.sums.updates += 1
            state.counts["updates"] += 1
            self.method.after_step(self.model, optimizer.optimizer, state.updates)
        return stepped

    def _clip(self, optimizer: torch.optim.Optimizer) -> Tensor:
        """Clip the gradients to the schedule's limit and return their norm before clipping.

        An optimizer with `release` takes each gradient during backward and frees it, so only the
        optimizer knows the norm. With `RELEASE = "fused"` it has already applied the gradients, and
        clipping is too late; the plan allows no limit there.
        """
        limit = self.schedule["max_gradient_norm"] or math.inf
        if not getattr(optimizer, "released", False):
            return self.accelerator.clip_grad_norm_(self.model.parameters(), limit)
        if optimizer.RELEASE == "gathered":
            return optimizer.clip_grad_norm_(limit)
        return optimizer.gradient_norm()

    def _evaluate(self, epoch: float) -> None:
        """Evaluate on the selection split and record one row of the history.

        The parameters are kept if they are the best so far. The sums begin anew.
        """
        start = time.perf_counter()
        update = self.state.updates
        training = self._training_measures(update)
        metrics = evaluation.metrics(
            self._scores(self.data.selection, before_batch=self.checkpoint.check)
        )
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
        self.accelerator.log({**training, **selection}, step=update)
        _print_row(row)
        check_finite(metrics, f"selection slice at update {update}")
        if self.schedule["select"] == "best":
            self.state.keep_if_best(self.model, metrics["eval_loss_nats"])
        self.state.sums = Sums()
        self.state.evaluation_seconds += time.perf_counter() - start

    def _training_measures(self, update: int) -> dict[str, float]:
        """Means since the last evaluation, and what the optimizer and the method report."""
        measures: dict[str, float] = {}
        if update:
            measures |= self.state.sums.means(update)
            rank = self.effective_rank() if self.effective_rank else None
            if rank is not None:
                measures["effective_rank"] = rank
        return measures | self.method.observe(self.model)

    def _scores(
        self, examples: list[dict], before_batch: Callable[[], None] | None = None
    ) -> evaluation.Scores:
        return evaluation.evaluate(
            self.model,
            self.data,
            examples,
            self.schedule["eval_batch_size"],
            self.accelerator.device,
            before_batch,
        )

    def _cost(self, train_seconds: float) -> dict[str, float]:
        """Seconds, throughput and peak memory of the run; evaluations are not in `train_time_s`."""
        counts = self.state.whole_counts()
        cost = {
            "train_time_s": train_seconds,
            "evaluation_time_s": self.state.evaluation_seconds,
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
        """Peak of allocated GPU memory, over all interruptions; 0 on the CPU."""
        if not self._on_gpu():
            return 0
        return max(self.state.earlier_peak_bytes, torch.cuda.max_memory_allocated())

    def _on_gpu(self) -> bool:
        return self.accelerator.device.type == "cuda"

    def _check_processes(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuse an optimizer with `release` on several processes.

        It averages its gradients over the processes itself, but accelerate has wrapped the model to
        average them too.
        """
        if getattr(optimizer, "released", False) and self.accelerator.num_processes > 1:
            raise Unsupported(
                f"release: got true with {self.accelerator.num_processes} processes, allowed: one "
                "process, because accelerate and the optimizer would both average the gradients"
            )

    def _save(
        self,
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler,
        batches: ResumableBatches,
    ) -> None:
        """Write the checkpoint."""
        if self.accelerator.num_processes > 1:
            return
        contents = {
            "update": self.state.updates,
            "model": trained_state(self.model),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "position": batches.position,
            "random_states": random_states(),
            "state": self.state.as_saved(self._elapsed(), self._peak_bytes()),
        }
        self.checkpoint.save(contents)

    def _resume(self, optimizer: torch.optim.Optimizer, scheduler: LRScheduler) -> dict | None:
        """Restore everything that the checkpoint holds.

        Returns:
            The position among the batches, or None if there is no checkpoint.
        """
        saved = self.checkpoint.load() if self.accelerator.num_processes == 1 else None
        if saved is None:
            return None
        # The method comes first: it may change the shapes into which the state is then loaded.
        self.method.resume(self.model, saved["update"])
        # Not strict, because the checkpoint leaves the frozen parameters out.
        self.model.load_state_dict(saved["model"], strict=False)
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        self.state = TrainingState.from_saved(saved["state"])
        restore_random_states(saved["random_states"])
        return saved["position"]


def _generators(collate: Callable) -> list[torch.Generator]:
    """The random generators that a collate object draws from."""
    return [value for value in vars(collate).values() if isinstance(value, torch.Generator)]


def _print_row(row: dict[str, float]) -> None:
    """Write a row of the history to the job's log."""
    values = ", ".join(f"{name} {value:.6g}" for name, value in row.items())
    print(values, file=sys.stderr, flush=True)
