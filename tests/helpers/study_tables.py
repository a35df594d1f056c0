"""Tables of a made-up study, as the workflow writes them, for figures to draw."""

import itertools

import numpy as np
import pandas as pd

from rankwise.analysis import evidence

METHODS = ("full", "lora", "rsvd", "galore", "sparse_lora", "dora")
UNRANKED = ("full", "bitfit")
RANKS = (2, 4, 8, 16, 64)
EXAMPLES, EPOCHS = 60, 3
MARGINS = {"accuracy_fraction": 0.01, "perplexity_ratio": 1.01}


def study_tables(
    methods: tuple = METHODS,
    ranks: tuple = RANKS,
    seeds: int = 3,
    datasets: tuple = ("sst2", "wikitext"),
    failed: dict | None = None,
) -> dict[str, pd.DataFrame]:
    """Runs, history, memory, estimates and comparisons of every method at every rank.

    Later methods and higher ranks are better. sst2 has an accuracy, every other dataset a
    perplexity. `failed` maps (method, rank, seed) to the status of a run that failed.
    """
    random, failed = np.random.default_rng(0), failed or {}
    runs, history, memory, examples = [], [], [], []
    for dataset, (place, method) in itertools.product(datasets, enumerate(methods)):
        own_ranks = (0,) if method in UNRANKED else ranks
        for rank, seed in itertools.product(own_ranks, range(seeds)):
            cell = {"model": "distilbert", "dataset": dataset, "method": method, "rank": rank}
            status = failed.get((method, rank, seed), "ok")
            quality = 0.6 + 0.03 * place + 0.01 * RANKS.index(rank or 2)
            correct = (random.random(EXAMPLES) < quality).astype(float)
            run = {**cell, "seed": seed, "status": status, "reason": None}
            run["request_digest"] = f"{len(runs):016x}"
            metric = _metric(dataset, correct) if status == "ok" else {}
            runs.append({**run, "split": "validation", **metric})
            if seed == 0:
                memory.append({**cell, "status": "ok", **_sizes(place, rank)})
            if status == "ok":
                examples.append(_scores(run, dataset, correct))
                history += _history({**cell, "seed": seed}, quality, random)
    frames = {name: pd.DataFrame(rows) for name, rows in
              (("runs", runs), ("history", history), ("memory", memory))}  # fmt: skip
    return {**frames, **_findings(frames["runs"], pd.concat(examples))}


def _metric(dataset: str, correct: np.ndarray) -> dict:
    if dataset == "sst2":
        return {"accuracy_fraction": correct.mean()}
    return {"perplexity": np.exp(2.5 - correct.mean())}


def _sizes(place: int, rank: int) -> dict:
    kept = {"weights_bytes": 1e8, "quantization_bytes": 0, "gradients_bytes": 1e6 * rank}
    return {**kept, "optimizer_state_bytes": 1e6 * (rank + 9 * place)}


def _scores(run: dict, dataset: str, correct: np.ndarray) -> pd.DataFrame:
    scores = {"loss_nats": 2.5 - correct, "predictions": 1, "example": range(EXAMPLES)}
    if dataset == "sst2":
        scores["correct_fraction"] = correct
    return pd.DataFrame({**run, **scores})


def _history(run: dict, quality: float, random: np.random.Generator) -> list[dict]:
    rows = []
    for epoch in range(EPOCHS + 1):
        row = {**run, "epoch": float(epoch), "update": 9 * epoch}
        row["selection_loss_nats"] = 1 / (1 + epoch * quality)
        if epoch:
            row["gradient_norm"] = np.exp(random.normal() - epoch)
        if "lora" in run["method"] or run["method"] == "dora":
            row["product_effective_rank"] = 0.7 * run["rank"] if epoch else 0
        if run["method"] == "sparse_lora":
            row["sparsity_fraction"] = 0.1 * epoch
        rows.append(row)
    return rows


def _findings(runs: pd.DataFrame, examples: pd.DataFrame) -> dict[str, pd.DataFrame]:
    groups = []
    for dataset, own_runs in runs.groupby("dataset", sort=False):
        own_examples = examples[examples["dataset"] == dataset].dropna(axis=1, how="all")
        groups += evidence.groups(own_runs, own_examples)
    return {
        "estimates": evidence.estimates(groups),
        "comparisons": evidence.comparisons(groups, MARGINS),
    }
