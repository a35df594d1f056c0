"""Costs of variants that no profile names: a profile of the same settings is theirs, too.

A variant with another learning rate, or with more epochs, has the memory and the FLOPs of its
method, so a study does not profile it again.
"""

import pandas as pd

from rankwise.analysis.run_settings import STORAGE
from rankwise.core.keys import CURVE, VARIANT
from rankwise.study.grids import VARIANT_MARK, base_name, split_name

# Columns of the table of runs with settings that a profile depends on.
OF_METHOD = ("options_", "optimizer_")
OF_BATCH = (
    "schedule_batch_size", "schedule_accumulation_steps", "schedule_checkpointing",
    "schedule_precision", "schedule_loss",
)  # fmt: skip
Curve = tuple  # the values of CURVE


def with_variants(profiles: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """A table of profiles in which each trained variant has the rows that hold for it.

    Args:
        profiles: A table with a row, or several, for each curve that was profiled.
        runs: The table of runs.

    Returns:
        The table. A variant that has no rows gets those of a curve with the same method and rank,
        and with the same settings of all that a profile depends on; none if there is no such curve.
    """
    own_curves = list(dict.fromkeys(_curves(profiles)))
    parts = [profiles]
    for variant, others in _curves_like_variants(runs).items():
        known = [curve for curve in others if curve in own_curves]
        if variant not in own_curves and known:
            is_like = [curve == known[0] for curve in _curves(profiles)]
            parts.append(_renamed(profiles[is_like], variant))
    return pd.concat(parts, ignore_index=True) if len(parts) > 1 else profiles


def _curves(frame: pd.DataFrame) -> list[Curve]:
    return list(frame[CURVE].itertuples(index=False, name=None))


def _curves_like_variants(runs: pd.DataFrame) -> dict[Curve, list[Curve]]:
    """Curve of a variant -> the curves of its method with the same settings, itself included."""
    settings = [name for name in runs if _decides_a_profile(name)]
    is_variant = runs["method"].astype(str).str.contains(VARIANT_MARK, regex=False)
    if not is_variant.any() or not settings:
        return {}
    first_runs = runs.drop_duplicates(CURVE)
    # Empty fields are equal to each other here.
    values = first_runs[settings].astype(object).where(first_runs[settings].notna(), None)
    curves_by_settings: dict[tuple, list[Curve]] = {}
    likes: dict[Curve, list[Curve]] = {}
    for curve, own in zip(_curves(first_runs), values.itertuples(index=False), strict=True):
        model, dataset, method, rank = curve
        same = curves_by_settings.setdefault((model, dataset, base_name(method), rank, *own), [])
        same.append(curve)
        if VARIANT_MARK in method:
            likes[curve] = same
    return likes


def _decides_a_profile(column: str) -> bool:
    return column.startswith(OF_METHOD) or column in STORAGE or column in OF_BATCH


def _renamed(rows: pd.DataFrame, curve: Curve) -> pd.DataFrame:
    """Rows of another curve of the method, as rows of a variant."""
    method = curve[CURVE.index("method")]
    renamed = rows.assign(method=method)
    return renamed.assign(**{VARIANT: split_name(method)[1]}) if VARIANT in rows else renamed
