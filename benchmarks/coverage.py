"""How often intervals hold the true value, in tables of scores made up for it. Writes coverage.md.

    python benchmarks/coverage.py

A table holds the scores of two methods, by random seed and example. The effects of seed and example
are normal. 0/1 scores tell whether such a sum is below a threshold. So the true value is known.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from rankwise.analysis import statistics
from rankwise.analysis.variance import checked_scores

ROOT = Path(__file__).resolve().parents[1]
SIZES = ((2, 200), (3, 200), (3, 872), (5, 200), (10, 200))  # seeds, examples; SST-2 has 872
TABLES = 16_000  # for each setting and size
RESAMPLED_TABLES = 1000  # for the bootstrap, which is slower
DRAWS = 1000  # resamples of a table
BATCH = 250  # tables at once, to bound memory
NOTE = """
Share of made-up tables (%) whose 95 % interval holds the true value: of `statistics.mean` or
`statistics.difference`, and in brackets of the percentiles of the bootstrap over seeds and
examples. {tables:,} tables a cell, standard error {error:.1f} points; in brackets {resampled:,}
tables of {draws:,} resamples, {coarse:.1f} points. Claimed: 95 +- 1.5 from three seeds on. Above
that: two seeds, and 0/1 scores with fewer than ten examples wrong, or in dispute between two runs.
Where the methods do not differ, the rest to 100 is how often one of them is called better by
mistake. Effects: standard deviations of seeds, of examples (shared by both methods), of examples
within a method, and of the residual; for 0/1 scores before the threshold.
"""


class Setting(NamedTuple):
    """Standard deviations of the effects in made-up scores, and what is made of them."""

    name: str
    seeds: float
    examples: float  # shared by both methods
    own: float  # of examples within a method
    residual: float
    paired: bool = False  # two methods are compared
    accuracies: tuple[float, float] | None = None  # of the two methods; None for losses
    claimed: bool = True  # we claim 95 +- 1.5 % coverage


SETTINGS = (
    Setting("loss, seeds alike", 0, 1, 0, 0.5),
    Setting("loss, seeds differ little", 0.05, 1, 0, 0.5),
    Setting("loss, seeds differ much", 0.5, 1, 0, 0.5),
    Setting("accuracy 0.90, seeds differ little", 0.05, 1, 0, 0.5, False, (0.9, 0.9)),
    Setting("accuracy 0.90, seeds differ much", 0.3, 1, 0, 0.5, False, (0.9, 0.9)),
    Setting("accuracy 0.95, seeds differ little", 0.05, 1, 0, 0.5, False, (0.95, 0.95)),
    Setting("accuracy 0.97, seeds differ little", 0.05, 1, 0, 0.5, False, (0.97, 0.97), False),
    Setting("losses, no difference, residual only", 0, 1, 0, 0.3, True),
    Setting("losses, no difference, seeds differ little", 0.02, 1, 0.3, 0.3, True),
    Setting("losses, no difference, seeds differ much", 0.5, 0.1, 0.3, 0.3, True),
    Setting("accuracies 0.90, no difference, seeds alike", 0, 1, 0.3, 0.3, True, (0.9, 0.9)),
    Setting("accuracies 0.90, no difference, seeds differ", 0.2, 1, 0.3, 0.3, True, (0.9, 0.9)),
    Setting("accuracies 0.92 and 0.90", 0.05, 1, 0.3, 0.3, True, (0.92, 0.9)),
    Setting("accuracies 0.97, no difference, runs agree", 0, 1, 0, 0.1, True, (0.97, 0.97), False),
)


def tables(
    setting: Setting, shape: tuple[int, int], count: int, seed: int
) -> tuple[NDArray, NDArray, float]:
    """Made-up scores of two methods and the true value.

    Args:
        setting: Where the scores come from.
        shape: Seeds and examples of a table.
        count: How many tables.
        seed: Of the random numbers.

    Returns:
        Scores of both methods, (count, seeds, examples) each, the same ones twice where methods are
        not compared; and the true mean, or the true difference where they are.
    """
    chance, (seeds, examples) = np.random.default_rng(seed), shape
    shared = setting.examples * chance.standard_normal((count, 1, examples))
    effects = ((setting.seeds, (seeds, 1)), (setting.own, (1, examples)), (setting.residual, shape))
    scores = []
    for _ in range(2 if setting.paired else 1):
        own = sum(sd * chance.standard_normal((count, *axes)) for sd, axes in effects)
        scores.append(shared + own)
    if setting.accuracies is None:
        return scores[0], scores[-1], 0.0
    spread = np.sqrt(setting.examples**2 + sum(sd**2 for sd, _ in effects))
    right = []
    for sums, accuracy in zip(scores, setting.accuracies, strict=False):
        right.append((sums < spread * norm.ppf(accuracy)).astype(float))
    first, second = setting.accuracies
    return right[0], right[-1], first - second if setting.paired else first


def coverage(setting: Setting, shape: tuple[int, int], resampled: int = 0) -> tuple[float, float]:
    """Share of intervals that hold the true value.

    Args:
        setting: Where the scores come from.
        shape: Seeds and examples of a table.
        resampled: On how many tables the bootstrap is tried.

    Returns:
        Of our intervals on TABLES tables, and of the bootstrap's percentiles on the first
        `resampled` ones (nan for 0).
    """
    ours, theirs = [], []
    weights = _resamples(shape) if resampled else None
    for start in range(0, TABLES, BATCH):
        a, b, truth = tables(setting, shape, BATCH, seed=start)
        estimate = statistics.difference(a, b) if setting.paired else statistics.mean(a)
        ours.extend((estimate.low <= truth) & (truth <= estimate.high))
        if start < resampled:
            low, high = _percentiles(a - b if setting.paired else a, *weights)
            theirs.extend((low <= truth) & (truth <= high))
    return float(np.mean(ours)), float(np.mean(theirs)) if resampled else float("nan")


# The bootstrap that our intervals are compared with -----------------------------------------------


def bootstrap(
    statistic: Callable[..., ArrayLike],
    tables: Sequence[ArrayLike],  # (S, E) each
    draws: int,
    seed: int,
) -> NDArray:
    """A statistic of tables on resampled seeds and examples: the pigeonhole bootstrap.

    The same seeds and examples are drawn in every table.

    Args:
        statistic: Takes the resampled tables.
        tables: Scores by seed and example, all of one shape.
        draws: Resamples to take.
        seed: Of the random numbers.

    Returns:
        The statistic's values, (draws, ...).

    Raises:
        ValueError: There are no tables, or they differ in shape.

    References:
        Owen 2007.
    """
    tables = [checked_scores(table, f"table {number}") for number, table in enumerate(tables)]
    shapes = sorted({table.shape for table in tables})
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise ValueError(f"tables are {shapes}; allowed: one shape, (seeds, examples)")
    chance, (seeds, examples) = np.random.default_rng(seed), shapes[0]
    values = []
    for _ in range(draws):
        picked_seeds = chance.integers(seeds, size=seeds)
        picked_examples = chance.integers(examples, size=examples)
        picks = np.ix_(picked_seeds, picked_examples)
        values.append(statistic(*(table[picks] for table in tables)))
    return np.array(values)


def _resamples(shape: tuple[int, int]) -> tuple[NDArray, NDArray]:
    """What `bootstrap` draws, as weights: (seeds, draws) and (examples, draws).

    A mean over a resample is a weighted mean over the table, so the same draws serve all tables.
    """
    seeds, examples = shape

    def weights(seed_numbers: NDArray, example_numbers: NDArray) -> NDArray:
        by_seed = np.bincount(seed_numbers[:, 0].astype(int), minlength=seeds) / seeds
        by_example = np.bincount(example_numbers[0].astype(int), minlength=examples) / examples
        return np.concatenate([by_seed, by_example])

    drawn = bootstrap(weights, np.indices(shape), DRAWS, seed=0).T
    return drawn[:seeds], drawn[seeds:]


def _percentiles(
    scores: NDArray,  # (count, S, E)
    by_seed: NDArray,  # (S, draws)
    by_example: NDArray,  # (E, draws)
) -> NDArray:
    """The 2.5th and the 97.5th percentile of the mean over resamples, (2, count)."""
    means = ((scores @ by_example) * by_seed).sum(1)
    return np.quantile(means, (0.025, 0.975), axis=1)


# The page -----------------------------------------------------------------------------------------


def main() -> None:
    """Simulate every setting at every size and write the table."""
    sizes = [f"{seeds} seeds, {examples} examples" for seeds, examples in SIZES]
    lines = [["scores", "effects", *sizes], ["---", "---", *["---:"] * len(SIZES)]]
    for setting in SETTINGS:
        lines.append(_line(setting))
        print(*lines[-1], sep=" | ", flush=True)
    note = NOTE.format(
        tables=TABLES,
        resampled=RESAMPLED_TABLES,
        draws=DRAWS,
        error=_standard_error(TABLES),
        coarse=_standard_error(RESAMPLED_TABLES),
    )
    rows = [f"| {' | '.join(line)} |\n" for line in lines]
    (ROOT / "benchmarks/coverage.md").write_text("".join([*rows, note]), encoding="utf-8")


def _line(setting: Setting) -> list[str]:
    """A row of the page: the setting and its coverage at every size, in percent."""
    deviations = (setting.seeds, setting.examples, setting.own, setting.residual)
    cells = []
    for shape in SIZES:
        ours, theirs = coverage(setting, shape, RESAMPLED_TABLES)
        cells.append(f"{100 * ours:.1f} ({100 * theirs:.1f})")
    return [setting.name, ", ".join(f"{deviation:g}" for deviation in deviations), *cells]


def _standard_error(tables: int) -> float:
    """Of a coverage of 95 %, in points."""
    return 100 * np.sqrt(0.95 * 0.05 / tables)


if __name__ == "__main__":
    main()
