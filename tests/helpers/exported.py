"""A study with real profiles, and training runs as the loop writes them, for tests of its exports."""

import csv
from pathlib import Path

from rankwise.analysis import tables, tidy
from rankwise.core import result
from rankwise.measure.flops import count
from rankwise.measure.memory import ledger, persistent
from rankwise.measure.memory.leaf_outputs import leaf_outputs_bytes
from rankwise.measure.speed import latency
from rankwise.study import jobs, outputs
from rankwise.study.plan import Cell, Plan

# Published system A, rSVD/graph/optimizer_memory_comparison.csv at ec7ccdb, whose rSVDAdam is our
# rsvd.
COMPARISON = """\
optimizer,rank,memory_mb,memory_bytes,savings_mb,savings_pct
Adam,,510.8265838623047,535640496,0,0
rsvd,4,2.9188766479492188,3060664,507.90770721435547,99.4285973478749
rsvd,8,5.365074157714844,5625688,505.46150970458984,98.9497269078774
rsvd,16,10.249656677246094,10747544,500.5769271850586,97.99351541187431
rsvd,64,39.572776794433594,41495064,471.2538070678711,92.25318766787193
rsvd,128,78.6728744506836,82494488,432.1537094116211,84.59890754787143
"""
DISTILBERT = {
    "models": ["distilbert"],
    "datasets": ["sst2"],
    "methods": ["full", "rsvd"],
    "measured": False,
}
TINY = {
    "models": ["tiny"],
    "datasets": ["generated_reviews"],
    "methods": ["full", "lora"],
    "ranks": [2],
}
STUDY = {
    "name": "t",
    "question": "?",
    "device": "cpu",
    "train": [{**TINY, "seeds": [3, 5]}],
    "profile": [
        {**DISTILBERT, "ranks": [4, 8, 16, 64, 128], "measurements": ["memory"]},
        {**DISTILBERT, "ranks": [16], "measurements": ["ledger", "flops"]},
        {
            **TINY,
            "measurements": ["memory", "flops", "forward"],
            "batch_sizes": [4, 1],
            "lengths_tokens": [16, 8],
        },
    ],
}
ENVIRONMENT = {
    "python": "3.11.7",
    "platform": "Linux",
    "packages": {"torch": "2.13.0", "transformers": "5.23.0"},
}


def write_results(study: Plan, root: Path) -> None:
    """Write the results and the tables of STUDY. One training run was on CUDA and one diverged."""
    measures = {
        "memory": persistent.memory,
        "flops": count.flops,
        "ledger": measured_ledger,
        "forward": lambda request: latency.forward(request, processes=1),
    }
    for measurement, measure in measures.items():
        for cell in study.cells(measurement):
            request = study.request(measurement, cell)
            path = root / study.path(measurement, cell)
            result.write(path, request, measure(request), ENVIRONMENT)
    for cell in study.cells("train"):
        request = study.request("train", cell)
        result.write(root / study.path("train", cell), request, trained(cell), ENVIRONMENT)
    for name in outputs.export_tables(study):
        tabulate(study, name, root)


def measured_ledger(request: dict) -> dict:
    measured = ledger.ledger(request)
    measured["metrics"]["leaf_outputs_bytes"] = leaf_outputs_bytes(request)
    return measured


def trained(cell: Cell) -> dict:
    if cell.seed == 5 and cell.method == "lora":
        return {"status": "diverged", "reason": "loss nan by update 3"}
    evaluated = {
        "selection_loss_nats": 0.5,
        "selection_accuracy_fraction": 0.75,
        "learning_rate": 1e-3,
    }
    learned = {**evaluated, "train_loss_nats": 0.25, "gradient_norm": 2.0}
    history = [
        {"epoch": 0.0, "update": 0, **evaluated},
        {"epoch": 1.0, "update": 9, **learned},
        {"epoch": 2.0, "update": 18, **learned},
    ]
    metrics = {
        "accuracy_fraction": 0.8,
        "eval_loss_nats": 0.4,
        "samples": 600,
        "tokens": 9000,
        "updates": 18,
        "trainable_parameters": 700,
        "total_parameters": 81602,
    }
    cost = {
        "train_time_s": 8.0,
        "evaluation_time_s": 2.0,
        "step_time_s": 0.4,
        "throughput_samples_per_s": 75.0,
    }
    if cell.method == "full":
        cost["peak_allocated_bytes"] = 3 * 2**20 + 2**19
    return {"metrics": metrics, "history": history, "cost": cost, "split": "validation"}


def tabulate(plan: Plan, name: str, root: Path) -> None:
    measurement = outputs.TABLE_SOURCES[name]
    planned = [
        tidy.Planned(root / job.path, job.cell.method_name)
        for job in jobs.cell_jobs(plan, measurement)
    ]
    frame = tidy.listed(planned, name) if name in outputs.LISTS else tidy.collect(planned)
    tables.write(frame, root / plan.results / "tables" / name)


def rows(path: Path) -> list[dict]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))
