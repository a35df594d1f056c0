"""The one training loop, on accelerate. It knows no method and no task by name."""

import importlib
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import get_scheduler

from rankwise import evaluation, models, storage
from rankwise.inputs import Data, load_data, model_folder
from rankwise.method import Method, Unsupported, adapt, build_optimizer

MIXED_PRECISION = {"fp32": "no", "bf16": "bf16"}
COMPUTE = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Diverged(ArithmeticError):
    """The loss or the gradient is no longer finite."""


@dataclass
class Progress:
    """Sums since the last evaluation, kept on the device so that nothing waits for it."""

    loss: torch.Tensor | float = 0.0
    norm: torch.Tensor | float = 0.0
    batches: int = 0
    updates: int = 0

    def means(self, update: int) -> dict[str, float]:
        """Mean loss a micro-batch and gradient norm an update.

        Raises:
            Diverged: one of them is not finite.
        """
        loss, norm = float(self.loss) / max(self.batches, 1), float(self.norm) / max(self.updates, 1)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise Diverged(f"loss {loss}, gradient norm {norm} by update {update}")
        return {"train_loss_nats": loss, "gradient_norm": norm}


def train(request: dict) -> dict:
    """Fine-tune one cell; the result's metrics are those of the selected state on the reported split.

    After a search it has the settings that the search chose: `selected` in the result. Out of memory, a diverged loss and an
    unsupported method are results, with a reason.
    """
    if "search" not in request["inputs"]:
        return _outcome(request)
    settled, says = importlib.import_module("rankwise.settled").settle(request)  # by name: an edit of it reruns no other runs
    return says if "status" in says else {**_outcome(settled), **says}


def trial(request: dict) -> dict:
    """Fine-tune one trial of a search: its request's reported split is the selection slice, and no example's score is kept."""
    return {name: part for name, part in _outcome(request).items() if name != "examples"}


def _outcome(request: dict) -> dict:
    torch.set_num_threads(request["cpu_threads"])
    try:
        return _train(request)
    except torch.cuda.OutOfMemoryError as error:
        return {"status": "out_of_memory", "reason": str(error).splitlines()[0]}
    except Diverged as error:
        return {"status": "diverged", "reason": str(error)}
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}


def _train(request: dict) -> dict:
    cell, task, seed = request["cell"], request["dataset"]["task"], request["cell"]["seed"]
    folder = model_folder(request)
    models.check_room(request["model"], task, len(request["dataset"].get("classes", [])), "cpu")
    set_seed(seed)  # before the model, so that a new head starts alike under every method
    model = models.from_snapshot(folder, task, len(request["dataset"].get("classes", [])))
    total = sum(p.numel() for p in model.parameters())
    names = models.names(request["model"], task)
    model = storage.store(model, request["method"]["weights"], names, COMPUTE[request["schedule"]["precision"]])
    method, model = adapt(request["method"], model, names)
    if request["schedule"]["checkpointing"]:
        models.checkpoint(model)
    data = load_data(request, models.tokenizer(folder), seed)
    set_seed(seed)  # again, so that dropout does not depend on what the method drew
    loop = Loop(model, method, data, request["schedule"], request["device"], tracking=cell)
    outcome = loop.run(build_optimizer(request["method"], method, model, names, seed) if _trainable(model) else None, seed)
    sizes = {"trainable_parameters": sum(p.numel() for p in _trainable(model)), "total_parameters": total}
    return {**outcome, "metrics": {**outcome["metrics"], **sizes}, "split": request["dataset"]["report_split"]}


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [param for param in model.parameters() if param.requires_grad]


def _check_finite(metrics: dict[str, float], where: str) -> None:
    if not all(math.isfinite(value) for value in metrics.values()):
        raise Diverged(f"{where}: {', '.join(f'{name} {value}' for name, value in metrics.items())}")


class Loop:
    """Train `model`, evaluating on the selection slice, then once on the reported split."""

    def __init__(self, model: nn.Module, method: Method, data: Data, schedule: dict, device: str, tracking: dict):
        self.method, self.data, self.schedule = method, data, schedule
        tracker = os.environ.get("RANKWISE_TRACKER", "none")
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

    def run(self, optimizer: torch.optim.Optimizer | None, seed: int) -> dict:
        """Metrics, history and cost."""
        start, evaluating = time.perf_counter(), 0.0
        counts = {"updates": 0, "samples": 0, "tokens": 0}
        if self.accelerator.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        evaluating += self._evaluate(0, 0.0, Progress(), 0.0)
        if optimizer is not None:
            evaluating += self._updates(optimizer, seed, counts)
            counts["tokens"] = int(counts["tokens"])
        seconds = time.perf_counter() - start - evaluating
        self._restore_best()
        examples = self._scores(self.data.report)
        metrics = evaluation.metrics(examples)
        _check_finite(metrics, "reported split")
        self.accelerator.end_training()
        found = {"metrics": {**metrics, **counts}, "history": self.history, "examples": examples}
        return {**found, "cost": self._cost(seconds, evaluating, counts)}

    def _updates(self, optimizer: torch.optim.Optimizer, seed: int, counts: dict) -> float:
        """Every optimizer update; returns the seconds spent on evaluation."""
        generator = torch.Generator().manual_seed(seed)
        size, accumulate = self.schedule["batch_size"], self.schedule["accumulation_steps"]
        loader = DataLoader(self.data.train, size, shuffle=True, generator=generator, collate_fn=self.data.collate)
        per_epoch = math.ceil(len(loader) / accumulate)
        total = self.schedule["updates"] or per_epoch * self.schedule["epochs"]
        every = self.schedule["evaluate_every_updates"] or min(per_epoch, total)
        if getattr(optimizer, "released", False) and self.accelerator.num_processes > 1:
            raise Unsupported("released gradients are averaged by the optimizer, but here the model is wrapped to do that")
        self.effective_rank = getattr(optimizer, "effective_rank", None)
        optimizer, loader = self.accelerator.prepare(optimizer, loader)
        warmup = round(total * self.schedule["warmup_fraction"])
        scheduler = get_scheduler(self.schedule["scheduler"], optimizer, warmup, total)
        progress, evaluating = Progress(), 0.0
        bar = tqdm(total=total, desc="updates", disable=not sys.stderr.isatty())
        while counts["updates"] < total:
            for batch in loader:
                rate = scheduler.get_last_lr()[0]
                if self._micro_batch(batch, optimizer, progress, counts):
                    scheduler.step()
                    bar.update()
                    done = counts["updates"]
                    if done % every == 0 or done == total:
                        evaluating += self._evaluate(done, done / per_epoch, progress, rate)
                        progress = Progress()
                if counts["updates"] == total:
                    break
        bar.close()
        return evaluating

    def _micro_batch(self, batch: dict, optimizer: torch.optim.Optimizer, progress: Progress, counts: dict) -> bool:
        """Forward and backward; an optimizer step when enough micro-batches are in. Returns whether it stepped."""
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
        counts["tokens"] = counts["tokens"] + batch["attention_mask"].sum()  # stays on the device: nothing waits for it
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
        return optimizer.clip_grad_norm_(limit) if optimizer.RELEASE == "gathered" else optimizer.gradient_norm()

    def _evaluate(self, update: int, epoch: float, progress: Progress, rate: float) -> float:
        """Record one row of history; keep the state if it is the best so far. Returns the seconds it took."""
        start = time.perf_counter()
        means = progress.means(update) if update else {}
        found = evaluation.metrics(self._scores(self.data.selection))
        row = {f"selection_{name.removeprefix('eval_')}": value for name, value in found.items()}
        if update and self.effective_rank and (rank := self.effective_rank()) is not None:
            means["effective_rank"] = rank
        means |= self.method.observe(self.model)
        self.history.append({"epoch": epoch, "update": update, "learning_rate": rate, **means, **row})
        self.accelerator.log({**means, **row}, step=update)
        print(", ".join(f"{k} {v:.6g}" for k, v in self.history[-1].items()), file=sys.stderr, flush=True)
        _check_finite(found, f"selection slice at update {update}")
        if self.schedule["select"] == "best" and found["eval_loss_nats"] < self.best[0]:
            state = {name: p.detach().cpu().clone() for name, p in self.model.named_parameters() if p.requires_grad}
            self.best = (found["eval_loss_nats"], state)
        return time.perf_counter() - start

    def _restore_best(self) -> None:
        with torch.no_grad():
            for name, param in self.model.named_parameters():
                if name in self.best[1]:
                    param.data = self.best[1][name].to(param.device)  # a method may have changed its shape since

    def _scores(self, examples: list[dict]) -> evaluation.Scores:
        """A score an example; masks and other draws of an evaluation are the same every time."""
        collate = type(self.data.collate)(self.data.tokenizer, seed=0)
        loader = DataLoader(examples, self.schedule["eval_batch_size"], collate_fn=collate)
        self.model.eval()
        device = self.accelerator.device
        moved = ({name: value.to(device) for name, value in batch.items()} for batch in loader)
        found = evaluation.evaluate(self.data.task, self.model, moved)
        self.model.train()
        return found

    def _cost(self, seconds: float, evaluating: float, counts: dict) -> dict[str, float]:
        cost = {"train_time_s": seconds, "evaluation_time_s": evaluating}
        if counts["updates"]:
            cost |= {"step_time_s": seconds / counts["updates"], "throughput_samples_per_s": counts["samples"] / seconds}
        if self.accelerator.device.type == "cuda":
            cost["peak_allocated_bytes"] = torch.cuda.max_memory_allocated()
        return cost
