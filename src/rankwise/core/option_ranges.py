"""The numbers that each option of Rankwise's own methods and optimizers may have.

Planning and the constructors read them here, so that a study, a script and a test get the same
sentence. Classes of the user's own and of other packages may call other things by these names, and
are not held to them.

Standard library only: optimizers need torch alone, and planning has none.
"""

import math
import numbers
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Range(NamedTuple):
    """Numbers that an option may have."""

    holds: Callable[[float], bool]
    allowed: str  # in words, for messages


NOT_NEGATIVE = Range(lambda value: 0 <= value < math.inf, "a finite number, 0 or more")
POSITIVE = Range(lambda value: 0 < value < math.inf, "a finite number above 0")
# A limit of infinity means no limit.
LIMIT = Range(lambda value: value > 0, "a number above 0")
SHARE = Range(lambda value: 0 <= value <= 1, "a number from 0 to 1")
SHARE_ABOVE_0 = Range(lambda value: 0 < value <= 1, "a number above 0, at most 1")
BELOW_1 = Range(lambda value: 0 <= value < 1, "a number in [0, 1)")
FINITE = Range(math.isfinite, "a finite number")
INTEGER = Range(math.isfinite, "an integer")
FROM_0 = Range(lambda value: value >= 0, "an integer, 0 or more")
FROM_1 = Range(lambda value: value >= 1, "an integer, 1 or more")
SEED = Range(lambda value: 0 <= value < 2**32, "an integer from 0 to 4294967295")

# By option; the numbers of one without an entry must be finite.
OPTIMIZERS = {
    "lr": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "betas": BELOW_1,
    "momentum": BELOW_1,
    "eps": NOT_NEGATIVE,
    "scale": POSITIVE,
    "granularity": POSITIVE,
    "limit": LIMIT,
    "clip": LIMIT,
    "smallest": NOT_NEGATIVE,
    "damping": POSITIVE,
    "beta2_decay": Range(lambda value: -math.inf < value <= 0, "a finite number, 0 or less"),
    "energy": SHARE_ABOVE_0,
    "fraction": SHARE_ABOVE_0,
    "threshold": SHARE,
    "drift": SHARE,
    "rho": SHARE,
    "rank": FROM_1,
    "interval_steps": FROM_1,
    "reference_width": FROM_1,
    "sketch_factor": FROM_1,
    "random_from_step": FROM_1,
    "oversample": FROM_0,
    "power_iterations": FROM_0,
    "least": FROM_0,
    "min_8bit_size": FROM_0,
    "newton_schulz_steps": FROM_1,
    "adamw_scale": POSITIVE,
    "active_layers": FROM_1,
    "perturbation": POSITIVE,
    "density": SHARE_ABOVE_0,
    "free_scale": NOT_NEGATIVE,
}
METHODS = {
    "rank": FROM_1,
    "alpha": POSITIVE,
    "dropout": BELOW_1,
    "plus_ratio": POSITIVE,
    "start_ratio": POSITIVE,
    "begin_step": FROM_0,
    "start_step": FROM_0,
    "final_step": FROM_0,
    "every_steps": FROM_1,
    "orthogonality": NOT_NEGATIVE,
    "ffn_sparsity": BELOW_1,
    "attention_sparsity": BELOW_1,
    "sparsity": BELOW_1,
    "prune_count": FROM_1,
    "estimator_rank": FROM_1,
    "dense_first": FROM_0,
    "dense_last": FROM_0,
    "mini_rank": FROM_1,
    "neumann_terms": FROM_1,
    "hidden": FROM_1,
    "seed": SEED,
    "start_batches": FROM_1,
    "loftq_iterations": FROM_1,
    "gamma": POSITIVE,
    "svt_interval_steps": FROM_1,
    "svt_keep": SHARE_ABOVE_0,
}
BY_FOLDER = {"methods": METHODS, "optim": OPTIMIZERS}


def violated(ranges: dict[str, Range], name: str, value: object) -> str | None:
    """The allowed range, in words, if a number of an option's value is outside of it.

    Args:
        ranges: `METHODS` or `OPTIMIZERS`; an empty one allows every finite number.
        name: The option's name.
        value: Of the right type, as the option's annotation says.

    Returns:
        None if every number of the value is allowed.
    """
    known = ranges.get(name, FINITE)
    outside = [number for number in _numbers(value) if not known.holds(number)]
    if not outside:
        return None
    return f"each {known.allowed}" if isinstance(value, list | tuple) else known.allowed


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, numbers.Real) and not isinstance(value, bool):
        yield value
