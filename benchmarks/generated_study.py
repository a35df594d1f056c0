"""Make a study of about 3,000 training runs with invented results, and build its page.

    python benchmarks/generated_study.py FOLDER [--seeds 5]

No model is trained: every number is invented from the cell's names, and is the same on each call.
Models and datasets are called `generated_...`, and the page's question says so, too. Results are
files as jobs write them; tables, figures and page are made by the functions of the workflow.
"""

import argparse
import os
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from rankwise.analysis import evidence, tables
from rankwise.analysis.claim_verdicts import claims
from rankwise.analysis.gather import gather
from rankwise.analysis.summary import summarise
from rankwise.core import result
from rankwise.core.keys import CURVE
from rankwise.report.html.build import page
from rankwise.study import jobs, outputs
from rankwise.study.plan import Cell, Plan

ROOT = Path(__file__).resolve().parents[1]
FILE = "config/generated.yaml"
METHODS = (
    "full", "bitfit", "lora", "lora_qkv", "rslora", "lora_plus", "dora", "pissa", "hira", "shira",
    "vera", "oft", "miss", "prompt_tuning", "prefix_tuning", "adapter_houlsby", "adapter_pfeiffer",
    "rsvd", "galore", "fira", "flora", "ldadam",
)  # fmt: skip
RANKS = (2, 4, 8, 16, 32)
EPOCHS, UPDATES = 12, 600
EXAMPLES = 40  # of the reported split
FIGURE_BYTES = 300_000
WEIGHTS_BYTES = 268_000_000
ENVIRONMENT = {
    "python": "3.11.7",
    "platform": "generated",
    "processor": "generated",
    "packages": {"torch": "2.13.0"},
    "differs_from_lock": {},
}


def study(seeds: int) -> dict:
    """The study: 2 models, 3 datasets, 22 methods, 5 ranks; every curve is profiled."""
    grid = {
        "models": ["generated_a", "generated_b"],
        "datasets": ["generated_x", "generated_y", "generated_z"],
        "methods": list(METHODS),
        "ranks": list(RANKS),
    }
    return {
        "name": "generated",
        "question": "Generated numbers: does the page of 3,000 runs stay small and quick?",
        "device": "cuda",
        "train": [{**grid, "seeds": list(range(seeds))}],
        "profile": [{**grid, "measurements": ["memory", "ledger", "flops", "throughput"]}],
    }


def write_entries(root: Path, seeds: int) -> Plan:
    """Write the study and its generated models and datasets; returns its plan."""
    shipped = {
        kind: yaml.safe_load((ROOT / f"config/{kind}.yaml").read_text(encoding="utf-8"))
        for kind in ("models", "datasets")
    }
    entries = {
        "models": {f"generated_{name}": shipped["models"]["distilbert"] for name in "ab"},
        "datasets": {f"generated_{name}": shipped["datasets"]["sst2"] for name in "xyz"},
    }
    for kind, content in entries.items():
        result.write_text(root / f"config/{kind}.yaml", yaml.safe_dump(content))
    result.write_text(root / FILE, yaml.safe_dump(study(seeds)))
    return Plan(study(seeds), root, FILE)


# Invented results ------------------------------------------------------------------------------


def random_of(*names: object) -> np.random.Generator:
    """A random generator that depends on the names alone."""
    return np.random.default_rng(zlib.crc32("/".join(map(str, names)).encode()))


def quality(cell: Cell) -> float:
    """The expected accuracy of a curve, as a fraction."""
    base = 0.70 + 0.15 * random_of(cell.model, cell.dataset).random()
    of_method = 0.05 * random_of(cell.dataset, cell.method).random()
    return base + of_method + 0.006 * np.log2(cell.rank or 16)


def training(cell: Cell, seed: int) -> dict:
    """A training run; one in two hundred diverged."""
    random = random_of(*cell.folder.split("/"), seed)
    if random.random() < 0.005:
        return {"status": "diverged", "reason": "loss is not finite at update 37 (generated)"}
    accuracy = float(np.clip(quality(cell) + 0.006 * random.normal(), 0, 1))
    history = []
    for epoch in range(EPOCHS + 1):
        loss = 0.9 * (1 - accuracy) + 0.5 * np.exp(-0.6 * epoch) + 0.004 * random.normal()
        row = {
            "epoch": float(epoch),
            "update": UPDATES * epoch // EPOCHS,
            "learning_rate": 1e-3 * (1 - epoch / EPOCHS),
            "selection_accuracy_fraction": accuracy - 0.2 * float(np.exp(-epoch)),
            "selection_loss_nats": float(loss),
        }
        if epoch:
            row |= {"train_loss_nats": float(0.95 * loss), "gradient_norm": random.exponential()}
        history.append(row)
    train_time_s = 300 * (1 + random.random())
    correct = random.random(EXAMPLES) < accuracy
    loss_nats = 1 - accuracy + 0.5 * ~correct
    return {
        "split": "validation",
        "examples": {
            "correct_fraction": correct.astype(float).tolist(),
            "loss_nats": loss_nats.tolist(),
            "predictions": [1.0] * EXAMPLES,
        },
        "history": history,
        "metrics": {
            "accuracy_fraction": float(correct.mean()),
            "eval_loss_nats": float(loss_nats.mean()),
            "samples": UPDATES * 32,
            "tokens": UPDATES * 32 * 40,
            "total_parameters": WEIGHTS_BYTES // 4,
            "trainable_parameters": trainable_parameters(cell),
            "updates": UPDATES,
        },
        "cost": {
            "train_time_s": train_time_s,
            "step_time_s": train_time_s / UPDATES,
            "evaluation_time_s": 9.0,
            "throughput_samples_per_s": 32 * UPDATES / train_time_s,
        },
    }


def trainable_parameters(cell: Cell) -> int:
    """Full fine-tuning trains every weight, a curve with a rank some thousands for each rank."""
    if not cell.rank:
        return WEIGHTS_BYTES // 4 if cell.method == "full" else 100_000
    return int(cell.rank * (20_000 + 20_000 * random_of(cell.method).random()))


def profile(measurement: str, cell: Cell) -> dict:
    """The profile of a curve; larger ranks cost more."""
    trainable = trainable_parameters(cell)
    kept = {
        "weights_bytes": WEIGHTS_BYTES,
        "quantization_bytes": 0,
        "gradients_bytes": 4 * trainable,
        "optimizer_state_bytes": 8 * trainable,
        "buffers_bytes": 4096,
    }
    random = random_of(measurement, *cell.folder.split("/"))
    match measurement:
        case "memory":
            counts = {"trainable_parameters": trainable, "total_parameters": WEIGHTS_BYTES // 4}
            return {"metrics": {**kept, **counts}}
        case "ledger":
            more = {"activations_bytes": 300_000_000, "temporary_bytes": int(4e7 * random.random())}
            peak = sum(kept.values()) + sum(more.values())
            phases = enumerate(("load", "forward", "backward", "update"), 1)
            return {
                "metrics": {**kept, **more, "peak_bytes": peak, "peak_phase": "backward"},
                "timeline": [{"event": event, "phase": name, **kept} for event, name in phases],
            }
        case "flops":
            forward = 357_593_874_432
            step = forward + int(forward * (1 + random.random()))
            return {"metrics": {"forward_flops": forward, "step_flops": step}}
        case _:
            time_s = 0.1 + 0.1 * random.random()
            times = {"update_time_s": time_s, "update_time_q1_s": 0.98 * time_s}
            times |= {"update_time_q3_s": 1.02 * time_s, "throughput_samples_per_s": 32 / time_s}
            return {"metrics": {"batch_size": 32}, "cost": times}


def write_results(plan: Plan, root: Path) -> None:
    """Write a result for every cell of the study, where its job would write it."""
    for measurement in ("train", "memory", "ledger", "flops", "throughput"):
        for cell in plan.cells(measurement):
            if measurement == "train":
                content = training(cell, cell.seed)
            else:
                content = {"device": "cuda", **profile(measurement, cell)}
            job_time_s = 300 * random_of(measurement, cell.folder).random()
            environment = {**ENVIRONMENT, "job_time_s": job_time_s}
            request = plan.request(measurement, cell)
            file = root / plan.path(measurement, cell)
            result.write(file, request, content, environment)


# Tables, figures, page -------------------------------------------------------------------------


def write_findings(runs: pd.DataFrame, stem: Path) -> None:
    """Write estimates and comparisons, by seeds alone: all pairs by example would take minutes."""
    metric = {"metric": "accuracy_fraction"}
    ended = runs.dropna(subset=["accuracy_fraction"])
    curves = ended.groupby(CURVE, sort=False)["accuracy_fraction"].agg(["mean", "std", "count"])
    curves = curves.reset_index().rename(columns={"mean": "estimate", "count": "seeds"})
    half = 2.8 * curves["std"] / np.sqrt(curves["seeds"])
    curves = curves.assign(
        **metric, examples=EXAMPLES, low=curves["estimate"] - half, high=curves["estimate"] + half
    )
    curves["note"] = None
    tables.write(curves[evidence.ESTIMATE], stem.with_name("estimates"))
    pairs = curves.merge(curves, on=["model", "dataset", *metric], suffixes=("_a", "_b"))
    place = pairs[["method_a", "rank_a"]].apply(tuple, axis=1)
    pairs = pairs[place < pairs[["method_b", "rank_b"]].apply(tuple, axis=1)]
    half = np.hypot(pairs["high_a"] - pairs["estimate_a"], pairs["high_b"] - pairs["estimate_b"])
    difference = pairs["estimate_a"] - pairs["estimate_b"]
    verdict = np.select(
        [difference - half > 0, difference + half < 0, difference.abs() + half < 0.01],
        ["a better", "b better", "tied"],
        "undecided",
    )
    pairs = pairs.assign(
        seeds=pairs["seeds_a"],
        examples=EXAMPLES,
        difference=difference,
        low=difference - half,
        high=difference + half,
        margin=0.01,
        verdict=verdict,
        test="generated",
    )
    comparisons = pairs.reindex(columns=evidence.COMPARISON)
    tables.write(comparisons, stem.with_name("comparisons"))


def write_views(estimates: pd.DataFrame, stem: Path) -> None:
    """Write fronts and views of one invented cost: the bootstrap behind real ones takes minutes."""
    curves = estimates[[*CURVE, "metric", "estimate", "low", "high"]]
    amount = 1e6 * np.exp(8 * curves["estimate"])
    shares = {"on_front": curves["estimate"] > 0.85, "front_probability": curves["estimate"]}
    fronts = curves.assign(cost="optimizer_state_bytes", amount=amount, **shares)
    tables.write(fronts, stem.with_name("fronts"))
    tables.write(fronts.assign(budget=2 * amount).tail(60), stem.with_name("views"))


def placeholder(name: str) -> str:
    """A figure of the size up to which the page holds figures; drawing real ones takes minutes."""
    random = random_of(name)
    lines = []
    while sum(map(len, lines)) < FIGURE_BYTES - 300:
        x, y = random.integers(0, 400, 2), random.integers(0, 300, 2)
        lines.append(f'<path d="M{x[0]},{y[0]}L{x[1]},{y[1]}" stroke="#999" opacity=".1"/>')
    size = 'width="400pt" height="300pt" viewBox="0 0 400 300"'
    text = f'<text x="9" y="20">{name}: a placeholder</text>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(lines)}{text}</svg>\n'


def build(root: Path, seeds: int) -> Path:
    """Write the whole study below `root`, which becomes the working directory.

    Args:
        root: an empty folder.
        seeds: the number of seeds of each curve; 5 give 3,060 runs.

    Returns:
        The path of the page.
    """
    root.mkdir(parents=True, exist_ok=True)
    os.chdir(root)
    plan = write_entries(root, seeds)
    write_results(plan, root)
    for name in outputs.tables(plan):
        table = f"{outputs.table_stem(name)}.csv"
        gather(jobs.document(plan, table).request, root / plan.output(table))
    stem = root / plan.output(outputs.table_stem("runs"))
    write_findings(tables.read(stem.with_suffix(".csv")), stem)
    summarise(outputs.summary_request(plan), stem.with_name("summary.csv"))
    write_views(tables.read(stem.with_name("estimates.csv")), stem)
    claims(outputs.claims_request(plan), root / plan.output(f"{outputs.CLAIMS}.csv"))
    for name in outputs.page_figures(plan):
        file = root / plan.output(f"{outputs.figure_stem(name)}.svg")
        result.write_text(file, placeholder(name))
    written = root / plan.output(outputs.REPORT)
    page(outputs.page_request(plan), written)
    return written


def main() -> None:
    """Build the study, and say where its page is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    written = build(given.folder.resolve(), given.seeds)
    print(f"{written}: {written.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
