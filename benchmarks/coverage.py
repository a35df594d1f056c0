"""How often intervals hold the true value, in tables of scores made up for it. Writes coverage.md.

    python benchmarks/coverage.py

Scores of two methods, by seed and example, from normal effects; 0/1 scores where those pass a threshold, so the truth is known.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from rankwise.analysis import statistics

ROOT = Path(__file__).resolve().parents[1]
SIZES = ((2, 200), (3, 200), (3, 872), (5, 200), (10, 200))  # seeds, examples; 872: SST-2's
TABLES, RESAMPLED_TABLES, DRAWS, BATCH = 16_000, 1000, 1000, 250
NOTE = """
Share of made-up tables (%) whose 95 % interval holds the true value: `stats.mean` or `stats.difference`, and in brackets the
percentiles of the bootstrap over seeds and examples. {tables:,} tables a cell, standard error {error:.1f} points; in brackets
{resampled:,} tables of {draws:,} resamples, {coarse:.1f} points. Claimed: 95 +- 1.5 from three seeds on. Above that: two seeds,
and 0/1 scores with fewer than ten examples wrong, or in dispute between two runs. Where nothing differs, what is missing to 100
is how often a method is called better by mistake. Effects: standard deviations of seeds, of examples (shared by both methods),
of examples within a method, and of the residual; for 0/1 scores before the threshold.
"""


class Setting(NamedTuple):
    """Where scores come from; accuracies None for losses."""

    name: str
    seeds: float
    examples: float
    own: float
    residual: float
    paired: bool = False
    accuracies: tuple[float, float] | None = None
    claimed: bool = True


SETTINGS = (
    Setting("loss, seeds alike", 0, 1, 0, 0.5),
    Setting("loss, seeds differ little", 0.05, 1, 0, 0.5),
    Setting("loss, seeds differ much", 0.5, 1, 0, 0.5),
    Setting("accuracy 0.90, seeds differ little", 0.05, 1, 0, 0.5, accuracies=(0.9, 0.9)),
    Setting("accuracy 0.90, seeds differ much", 0.3, 1, 0, 0.5, accuracies=(0.9, 0.9)),
    Setting("accuracy 0.95, seeds differ little", 0.05, 1, 0, 0.5, accuracies=(0.95, 0.95)),
    Setting(
        "accuracy 0.97, seeds differ little",
        0.05,
        1,
        0,
        0.5,
        accuracies=(0.97, 0.97),
        claimed=False,
    ),
    Setting("losses, no difference, residual only", 0, 1, 0, 0.3, paired=True),
    Setting("losses, no difference, seeds differ little", 0.02, 1, 0.3, 0.3, paired=True),
    Setting("losses, no difference, seeds differ much", 0.5, 0.1, 0.3, 0.3, paired=True),
    Setting(
        "accuracies 0.90, no difference, seeds alike",
        0,
        1,
        0.3,
        0.3,
        paired=True,
        accuracies=(0.9, 0.9),
    ),
    Setting(
        "accuracies 0.90, no difference, seeds differ",
        0.2,
        1,
        0.3,
        0.3,
        paired=True,
        accuracies=(0.9, 0.9),
    ),
    Setting("accuracies 0.92 and 0.90", 0.05, 1, 0.3, 0.3, paired=True, accuracies=(0.92, 0.9)),
    Setting(
        "accuracies 0.97, no difference, runs agree",
        0,
        1,
        0,
        0.1,
        paired=True,
        accuracies=(0.97, 0.97),
        claimed=False,
    ),
)


def tables(
    setting: Setting, shape: tuple[int, int], count: int, seed: int
) -> tuple[NDArray, NDArray, float]:
    """Scores of two methods, (count, seeds, examples) each, and the true value; one method twice where it is not compared."""
    chance, (seeds, examples) = np.random.default_rng(seed), shape
    shared = setting.examples * chance.standard_normal((count, 1, examples))
    effects = ((setting.seeds, (seeds, 1)), (setting.own, (1, examples)), (setting.residual, shape))
    scores = [
        shared + sum(sd * chance.standard_normal((count, *axes)) for sd, axes in effects)
        for _ in range(1 + setting.paired)
    ]
    if setting.accuracies is None:
        return scores[0], scores[-1], 0.0
    spread = np.sqrt(setting.examples**2 + sum(sd**2 for sd, _ in effects))
    first, second = setting.accuracies
    right = [
        (some < spread * norm.ppf(accuracy)).astype(float)
        for some, accuracy in zip(scores, (first, second), strict=False)
    ]
    return right[0], right[-1], first - second if setting.paired else first


def coverage(setting: Setting, shape: tuple[int, int], resampled: int = 0) -> tuple[float, float]:
    """Coverage of our interval, and of the bootstrap's percentiles on the first `resampled` tables: fractions."""
    ours, theirs = [], []
    weights = _resamples(shape) if resampled else None
    for start in range(0, TABLES, BATCH):
        a, b, truth = tables(setting, shape, BATCH, seed=start)
        found = statistics.difference(a, b) if setting.paired else statistics.mean(a)
        ours.extend((found.low <= truth) & (truth <= found.high))
        if start < resampled:
            low, high = _percentiles(a - b if setting.paired else a, *weights)
            theirs.extend((low <= truth) & (truth <= high))
    return float(np.mean(ours)), float(np.mean(theirs)) if resampled else float("nan")


def _resamples(shape: tuple[int, int]) -> tuple[NDArray, NDArray]:
    """What `stats.bootstrap` draws, as the weight of each seed (seeds, draws) and of each example (examples, draws)."""

    def weights(rows: NDArray, columns: NDArray) -> NDArray:
        picks = zip((rows[:, 0], columns[0]), shape, strict=True)
        return np.concatenate(
            [np.bincount(pick.astype(int), minlength=size) / size for pick, size in picks]
        )

    drawn = statistics.bootstrap(weights, np.indices(shape), DRAWS, seed=0).T
    return drawn[: shape[0]], drawn[shape[0] :]


def _percentiles(scores: NDArray, by_seed: NDArray, by_example: NDArray) -> NDArray:
    """The 2.5th and 97.5th percentile of the mean over resamples, (2, count)."""
    means = ((scores @ by_example) * by_seed).sum(1)
    return np.quantile(means, (0.025, 0.975), axis=1)


def main() -> None:
    """Simulate every setting at every size and write the table."""
    heads = [
        "scores",
        "effects",
        *(f"{seeds} seeds, {examples} examples" for seeds, examples in SIZES),
    ]
    lines = [heads, ["---", "---", *["---:"] * len(SIZES)]]
    for setting in SETTINGS:
        effects = ", ".join(f"{sd:g}" for sd in setting[1:5])
        cells = [coverage(setting, shape, RESAMPLED_TABLES) for shape in SIZES]
        lines.append(
            [
                setting.name,
                effects,
                *(f"{100 * ours:.1f} ({100 * theirs:.1f})" for ours, theirs in cells),
            ]
        )
        print(*lines[-1], sep=" | ", flush=True)
    error, coarse = (100 * np.sqrt(0.95 * 0.05 / number) for number in (TABLES, RESAMPLED_TABLES))
    note = NOTE.format(
        tables=TABLES, resampled=RESAMPLED_TABLES, draws=DRAWS, error=error, coarse=coarse
    )
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines) + note
    (ROOT / "benchmarks/coverage.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
