"""Put a study's figures and tables on its page."""

from pathlib import Path

import pandas as pd

from rankwise import result
from rankwise.report import index
from rankwise.report.tables import read

TITLES = {
    "memory": (
        "Optimizer memory",
        "What the optimizer keeps between steps, by method and rank, and the change against full AdamW.",
    ),
    "loss": ("Loss on the selection slice", "Mean over seeds, band from lowest to highest; the slice is held out of train."),
    "accuracy_memory": ("Quality against memory", "Quality on the reported split against the bytes kept between steps."),
    "ledger": (
        "What a training step holds at its peak",
        "Bytes by kind, predicted from shapes; the line is the measured peak, where the device was there.",
    ),
    "predicted": ("Predicted and measured peaks", "How far each measured peak is from the predicted one."),
    "timeline": ("Memory over a step", "Live bytes by kind through two steps: the first makes the optimizer's state."),
    "fits": ("What fits", "The largest micro-batch that memory of a size holds, by sequence length. Predicted from shapes."),
    "flops": ("FLOPs of an update", "Products of forward, backward and optimizer; refreshes are spread over their interval."),
    "latency": ("Forward pass", "Median latency by batch size and length; bars are quartiles."),
    "throughput": ("A training step's time", "Median seconds of forward, backward and optimizer; whiskers are quartiles."),
}
TABLES = {
    "summary": "Results",
    "claims": "Published numbers",
    "memory": "Memory kept between steps",
    "ledger": "Memory of a step",
    "fits": "What fits",
    "throughput": "Training throughput",
    "flops": "FLOPs of a step",
    "forward": "Forward pass",
}
# Columns of the files that a reader of the page does not need.
HIDDEN = ["request_digest", "reason"]


def page(request: dict, output: Path) -> None:
    """Write the page; the figures' and tables' files lie in the folders beside it."""
    figures = [(TITLES[name][0], output.parent / "figures" / f"{name}.png", TITLES[name][1]) for name in request["figures"]]
    files = {name: output.parent / "tables" / f"{name}.csv" for name in request["tables"]}
    tables = [(TABLES[name], _shown(path), path) for name, path in files.items()]
    counts = request["counts"]
    facts = {
        "Runs": counts["train"],
        "Profiles": sum(counts.values()) - counts["train"],
        "Environment": f"{request['lock']['lock']}, digest {request['lock']['digest']}",
        "Command": f"snakemake --cores all --configfile {request['study']}",
    }
    study = {"name": request["name"], "question": request["question"]}
    result.write_text(output, index.render(study, figures, tables, facts))


def _shown(path: Path) -> pd.DataFrame:
    frame = read(path)
    return frame.drop(columns=[name for name in HIDDEN if name in frame]).dropna(axis="columns", how="all")
