"""The one training loop, on accelerate. It knows no method and no task by name."""

import math
import sys
import time
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import get_scheduler

from rankwise.core import settings
from rankwise.core.errors import Unsupported
from rankwise.data.prepared import Data
from rankwise.methods.parts.base import Method
from rankwise.training import evaluation
from rankwise.training.checkpoint import Batches, Checkpoint, Stopped, changing, draw_on, draws
from rankwise.training.progress import Course, Progress, check_finite

MIXED_PRECISION = {"fp32": "no", "bf16": "bf16"}


class Loop:
    """Train `model`, evaluating on the selection slice, then once on the reported split; from a checkpoint, if there is one."""

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
        self.method, self.data, self.schedule, self.checkpoint = method, data, schedule, checkpoint
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
        self.history: list[dict] = []
        self.effective_rank: Callable[[], float | None] | None = None
        self.best: tuple[float, dict] = (math.inf, {})
        self.counts = {"updates": 0, "samples": 0, "tokens": 0}
        self.progress, self.rate = Progress(), 0.0
        self.seconds = {
            "before": 0.0,
            "evaluation": 0.0,
        }  # before: of the same run, until it was stopped
        self.peak_bytes = 0

    def run(self, optimizer: torch.optim.Optimizer | None, seed: int) -> dict:
        """Metrics, history and cost.

        Raises:
            Stopped: the process was told to stop; the checkpoint has where it was.
        """
        self.start = time.perf_counter()
        if self.accelerator.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        if optimizer is None:
            self._evaluate(0.0)
        else:
            self._updates(optimizer, seed)
        seconds = self._elapsed() - self.seconds["evaluation"]
        self._restore_best()
        examples = self._scores(
            self.data.report
        )  # whatever is asked meanwhile: it is the last there is to do
        metrics = evaluation.metrics(examples)
        check_finite(metrics, "reported split")
        self.accelerator.end_training()
        self.counts["tokens"] = int(self.counts["tokens"])
        found = {
            "metrics": {**metrics, **self.counts},
            "history": self.history,
            "examples": examples,
        }
        return {**found, "cost": self._cost(seconds)}

    def _elapsed(self) -> float:
        return self.seconds["before"] + time.perf_counter() - self.start

    def _updates(self, optimizer: torch.optim.Optimizer, seed: int) -> None:
        """Every optimizer update that is still to come."""
        generator, size = torch.Generator().manual_seed(seed), self.schedule["batch_size"]
        loader = DataLoader(
            self.data.train, size, shuffle=True, generator=generator, collate_fn=self.data.collate
        )
        course = Course.of(self.schedule, len(loader))
        if getattr(optimizer, "released", False) and self.accelerator.num_processes > 1:
            raise Unsupported(
                "released gradients are averaged by the optimizer, but here the model is wrapped to do that"
            )
        self.effective_rank = getattr(optimizer, "effective_rank", None)
        optimizer, loader = self.accelerator.prepare(optimizer, loader)
        warmup = round(course.total * self.schedule["warmup_fraction"])
        scheduler = get_scheduler(self.schedule["scheduler"], optimizer, warmup, course.total)
        place = self._go_on(optimizer.optimizer, scheduler)
        own = [one for one in vars(self.data.collate).values() if isinstance(one, torch.Generator)]
        batches = Batches(loader, [generator, *own], place)
        try:
            self._advance(course, batches, optimizer, scheduler)
        except Stopped:
            self._keep(optimizer.optimizer, scheduler, batches)
            raise

    def _advance(
        self,
        course: Course,
        batches: Batches,
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler,
    ) -> None:
        bar = tqdm(
            total=course.total,
            initial=self.counts["updates"],
            desc="updates",
            disable=not sys.stderr.isatty(),
        )
        self.model.train()  # a model comes to evaluate, and what goes on from a checkpoint may not be evaluated first
        self._between(course)
        while self.counts["updates"] < course.total:
            for batch in batches.epoch():
                if self._micro_batch(batch, optimizer):
                    self.rate = scheduler.get_last_lr()[0]
                    scheduler.step()
                    bar.update()
                    self._between(course)
                    if self.checkpoint.due():
                        self._keep(optimizer.optimizer, scheduler, batches)
                if self.counts["updates"] == course.total:
                    break
        bar.close()

    def _between(self, course: Course) -> None:
        """After an update, and before the first: evaluate if that is due and was not done, and stop if that is asked for."""
        done = self.counts["updates"]
        if course.evaluates(done) and (not self.history or self.history[-1]["update"] < done):
            self._evaluate(done / course.per_epoch)
        self.checkpoint.check()

    def _micro_batch(self, batch: dict, optimizer: torch.optim.Optimizer) -> bool:
        """Forward and backward; an optimizer step when enough micro-batches are in. Returns whether it stepped."""
        progress, counts = self.progress, self.counts
        with self.accelerator.accumulate(self.model):
            loss = self.model(**batch).loss
            self.accelerator.backward(loss)
            stepped = self.accelerator.sync_gradients
            if stepped:
                progress.norm += self._clip(optimizer.optimizer)
            optimizer.step()
            optimizer.zero_grad()
        progress.loss += loss.detach()
        progress.batches += 1
        counts["samples"] += len(batch["input_ids"])
        counts["tokens"] = (
            counts["tokens"] + batch["attention_mask"].sum()
        )  # stays on the device: nothing waits for it
        if stepped:
            progress.updates += 1
            counts["updates"] += 1
            self.method.after_step(self.model, optimizer.optimizer, counts["updates"])
        return stepped

    def _clip(self, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        """Clip the gradients, wherever they are; returns their norm before."""
        limit = self.schedule["max_gradient_norm"] or math.inf
        if not getattr(optimizer, "released", False):
            return self.accelerator.clip_grad_norm_(self.model.parameters(), limit)
        return (
            optimizer.clip_grad_norm_(limit)
            if optimizer.RELEASE == "gathered"
            else optimizer.gradient_norm()
        )

    def _evaluate(self, epoch: float) -> None:
        """Record one row of history, and begin new sums; keep the state if it is the best so far."""
        start, update = time.perf_counter(), self.counts["updates"]
        means = self.progress.means(update) if update else {}
        found = evaluation.metrics(self._scores(self.data.selection, self.checkpoint.check))
        row = {f"selection_{name.removeprefix('eval_')}": value for name, value in found.items()}
        if update and self.effective_rank and (rank := self.effective_rank()) is not None:
            means["effective_rank"] = rank
        means |= self.method.observe(self.model)
        self.history.append(
            {"epoch": epoch, "update": update, "learning_rate": self.rate, **means, **row}
        )
        self.accelerator.log({**means, **row}, step=update)
        print(
            ", ".join(f"{k} {v:.6g}" for k, v in self.history[-1].items()),
            file=sys.stderr,
            flush=True,
        )
        check_finite(found, f"selection slice at update {update}")
        if self.schedule["select"] == "best" and found["eval_loss_nats"] < self.best[0]:
            state = {
                name: p.detach().cpu().clone()
                for name, p in self.model.named_parameters()
                if p.requires_grad
            }
            self.best = (found["eval_loss_nats"], state)
        self.progress = Progress()
        self.seconds["evaluation"] += time.perf_counter() - start

    def _restore_best(self) -> None:
        with torch.no_grad():
            for name, param in self.model.named_parameters():
                if name in self.best[1]:
                    param.data = self.best[1][name].to(
                        param.device
                    )  # a method may have changed its shape since

    def _scores(
        self, examples: list[dict], between: Callable[[], None] = lambda: None
    ) -> evaluation.Scores:
        """A score an example; what an evaluation draws is the same every time, and none of what training draws."""
        collate, own = (
            type(self.data.collate)(self.data.tokenizer, seed=0),
            torch.Generator(),
        )  # any loader draws a seed
        loader = DataLoader(
            examples, self.schedule["eval_batch_size"], collate_fn=collate, generator=own
        )

        def moved(batch: dict) -> dict:
            between()
            return {name: value.to(self.accelerator.device) for name, value in batch.items()}

        self.model.eval()
        found = evaluation.evaluate(self.data.task, self.model, map(moved, loader))
        self.model.train()
        return found

    def _cost(self, seconds: float) -> dict[str, float]:
        cost = {"train_time_s": seconds, "evaluation_time_s": self.seconds["evaluation"]}
        if self.counts["updates"]:
            cost |= {
                "step_time_s": seconds / self.counts["updates"],
                "throughput_samples_per_s": self.counts["samples"] / seconds,
            }
        if self.accelerator.device.type == "cuda":
            cost["peak_allocated_bytes"] = self._peak()
        return cost

    def _peak(self) -> int:
        return max(self.peak_bytes, torch.cuda.max_memory_allocated())

    # Checkpoints of one process: several would each have draws and a place of their own -----------------------------------

    def _keep(
        self, optimizer: torch.optim.Optimizer, scheduler: LRScheduler, batches: Batches
    ) -> None:
        if self.accelerator.num_processes > 1:
            return
        self.checkpoint.save({
            "model": changing(self.model), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(),
            "place": batches.place, "draws": draws(), "counts": {name: int(count) for name, count in self.counts.items()},
            "progress": self.progress.numbers(), "rate": self.rate, "history": self.history, "best": self.best,
            "seconds": {**self.seconds, "before": self._elapsed()},
            "peak_bytes": self._peak() if self.accelerator.device.type == "cuda" else 0,
        })  # fmt: skip

    def _go_on(self, optimizer: torch.optim.Optimizer, scheduler: LRScheduler) -> dict | None:
        """Bring back all that a checkpoint has; the place among the batches, None where there is none."""
        if self.accelerator.num_processes > 1 or (saved := self.checkpoint.load()) is None:
            return None
        self.method.resume(self.model, saved["counts"]["updates"])
        self.model.load_state_dict(saved["model"], strict=False)
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        for name in ("counts", "rate", "history", "best", "seconds", "peak_bytes"):
            setattr(self, name, saved[name])
        self.progress = Progress(**saved["progress"])
        draw_on(saved["draws"])
        return saved["place"]
