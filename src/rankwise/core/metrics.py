"""The metrics that a run may report: their columns, units, directions and margins.

A metric is declared here once, or in a file of the folder `metrics` beside a user's study. Tables,
figures, the page and LaTeX read the declaration; none of them knows a metric by name. How a metric
is computed from the scores of examples is in `rankwise.analysis.metrics`. Standard library only,
since a study is planned with it.
"""

import functools
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from rankwise.core import own_files
from rankwise.core.errors import ConfigError
from rankwise.core.paths import OWN_FOLDERS, own_folder

FRACTION, DIFFERENCE, LOGARITHM = "fraction", "difference", "logarithm"
FOLDER = "metrics"  # of the project, with a file for each metric of the user's own
LOSS, WEIGHT = "loss_nats", "predictions"  # scores that every task gives
# How the name of an own metric ends: it is the name of a column, which says its unit.
OWN_ENDINGS = ("_fraction", "_correlation", "_score")
OWN_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Metric(NamedTuple):
    """The declaration of a metric, for tables and for people.

    Attributes:
        name: Its column in the table of runs, `{quantity}_{unit}`.
        label: Its name in headings.
        phrase: Its name in a sentence, with the article.
        sign: 1 if more is better, -1 if less is.
        kind: How two values are compared. FRACTION: their difference, shown in points of per cent.
            DIFFERENCE: their difference as it is. LOGARITHM: the difference of their logarithms,
            shown as a ratio; intervals are made on the logarithm, too.
        margin: Key of a study's `equivalence` with the smallest difference that matters; of an own
            metric its name.
        scores: The columns of examples that it is computed from.
        lowest: No value is below it. LOGARITHM: not used.
        highest: No value is above it. LOGARITHM: not used.
        own_margin: Of an own metric, the smallest difference that matters; None for others.
    """

    name: str
    label: str
    phrase: str
    sign: int
    kind: str
    margin: str
    scores: tuple[str, ...]
    lowest: float = -math.inf
    highest: float = math.inf
    own_margin: float | None = None

    @property
    def is_own(self) -> bool:
        """Whether a file of the user's own declares it."""
        return self.own_margin is not None

    @property
    def is_fraction(self) -> bool:
        """Whether people see it in per cent."""
        return self.kind == FRACTION

    @property
    def is_log(self) -> bool:
        """Whether values are compared by their logarithms."""
        return self.kind == LOGARITHM

    @property
    def factor(self) -> int:
        """The factor by which a value is multiplied for people."""
        return 100 if self.is_fraction else 1

    @property
    def title(self) -> str:
        """The label with its unit."""
        return f"{self.label} (%)" if self.is_fraction else self.label

    def axis(self, split: str) -> str:
        """The title of an axis of a figure.

        Args:
            split: Such as ` on test`; may be empty.
        """
        unit = " (%)" if self.is_fraction else ""
        direction = "" if self.sign > 0 else "\n(lower is better)"
        return f"{self.label}{split}{unit}{direction}"

    @property
    def shown(self) -> tuple[str, str, str]:
        """Its column in the summary, and the columns of the ends of its interval."""
        stem, unit = self.name, ""
        if self.is_fraction:
            stem, unit = self.name.removesuffix("_fraction"), "_percent"
        return f"{stem}{unit}", f"{stem}_low{unit}", f"{stem}_high{unit}"


# Rankwise's metrics -------------------------------------------------------------------------------

CLASSES = ("label", "predicted")
COUNTS = ("right", "named", "labelled")


def _fraction(name: str, label: str, phrase: str, margin: str, scores: tuple[str, ...]) -> Metric:
    return Metric(f"{name}_fraction", label, phrase, 1, FRACTION, margin, scores, 0.0, 1.0)


def _correlation(name: str, label: str) -> Metric:
    full_name, phrase = f"{name}_correlation", f"a {label}"
    return Metric(full_name, label, phrase, 1, DIFFERENCE, "correlation", CLASSES, -1.0, 1.0)


_SHIPPED = (
    _fraction("accuracy", "accuracy", "an accuracy", "accuracy_fraction", ("correct_fraction",)),
    Metric("perplexity", "perplexity", "a perplexity", -1, LOGARITHM, "perplexity_ratio", (LOSS,)),
    Metric(
        "word_perplexity",
        "word perplexity",
        "a word perplexity",
        -1,
        LOGARITHM,
        "perplexity_ratio",
        (LOSS, WEIGHT, "words"),
    ),
    Metric(
        "bits_per_byte",
        "bits per byte",
        "a number of bits per byte",
        -1,
        DIFFERENCE,
        "bits_per_byte",
        (LOSS, WEIGHT, "text_bytes"),
        lowest=0.0,
    ),
    _fraction("macro_f1", "macro F1", "a macro F1", "f1_fraction", CLASSES),
    _correlation("matthews", "Matthews correlation"),
    _correlation("pearson", "Pearson correlation"),
    _correlation("spearman", "Spearman correlation"),
    Metric(
        "mean_squared_error",
        "mean squared error",
        "a mean squared error",
        -1,
        LOGARITHM,
        "mean_squared_error_ratio",
        CLASSES,
    ),
    _fraction("micro_f1", "micro F1", "a micro F1", "f1_fraction", COUNTS),
    _fraction("span_f1", "span F1", "a span F1", "f1_fraction", COUNTS),
    _fraction(
        "exact_match",
        "exact match",
        "an exact match",
        "exact_match_fraction",
        ("exact_match_fraction",),
    ),
)
SHIPPED = {metric.name: metric for metric in _SHIPPED}


# Metrics of the user's own ------------------------------------------------------------------------


class _Metrics(Mapping):
    """Name -> metric: Rankwise's own, then those that the folder `metrics` of the project declares.

    A file of that folder that declares no metric, or none that can be used, is not listed. Asking
    for it by name says what is wrong with it.
    """

    def __getitem__(self, name: str) -> Metric:
        if name in SHIPPED:
            return SHIPPED[name]
        file = own_file(name)
        if not file.is_file():
            raise KeyError(name)
        return _declared(file, file.stat().st_mtime_ns)

    def __iter__(self) -> Iterator[str]:
        yield from SHIPPED
        for file in sorted(own_folder(FOLDER).glob("*.py")):
            if file.stem in SHIPPED:
                continue  # planning refuses it
            try:
                yield self[file.stem].name
            except ConfigError:
                continue

    def __len__(self) -> int:
        return sum(1 for _ in self)


METRICS = _Metrics()


def own_file(name: str) -> Path:
    """The file that would declare an own metric of this name."""
    return own_folder(FOLDER) / f"{name}.py"


def module(name: str) -> str:
    """The dotted name of the module of an own metric."""
    return f"{OWN_FOLDERS[FOLDER]}.{name}"


def _is_number(value: object) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


# Constant of an own metric's file -> what it may be, in words, and the test of it.
_CONSTANTS = {
    "LABEL": (
        "a text: the metric's name in headings",
        lambda value: isinstance(value, str) and bool(value.strip()),
    ),
    "SCORES": (
        "a tuple of the columns of examples that it needs, such as ('label', 'predicted')",
        lambda value: (
            isinstance(value, tuple) and bool(value) and all(isinstance(one, str) for one in value)
        ),
    ),
    "HIGHER_IS_BETTER": ("True or False", lambda value: isinstance(value, bool)),
    "LOWEST": (
        "a number, or None: no value is below it",
        lambda value: value is None or _is_number(value),
    ),
    "HIGHEST": (
        "a number, or None: no value is above it",
        lambda value: value is None or _is_number(value),
    ),
    "MARGIN": (
        "a number above 0: the smallest difference that matters",
        lambda value: _is_number(value) and value > 0,
    ),
}


@functools.cache
def _declared(file: Path, _: int) -> Metric:
    """The metric that a file declares.

    Args:
        file: Of the user's own.
        _: The time of its last change, so that an edited file is read again.

    Raises:
        ConfigError: The name or a constant is not as it must be, or there is no `compute`.
    """
    name, shown = file.stem, own_files.shown(file)
    if not (OWN_NAME.fullmatch(name) and name.endswith(OWN_ENDINGS)):
        allowed = f"small letters, digits and '_', and one of the endings {', '.join(OWN_ENDINGS)}"
        raise ConfigError(shown, "file name", name, allowed)
    constants, defined = own_files.constants(file)
    for key, (allowed, fits) in _CONSTANTS.items():
        if key not in constants or not fits(constants[key]):
            raise ConfigError(shown, key, constants.get(key, "nothing"), allowed)
    if "compute" not in defined:
        allowed = "a function: compute(scores), of arrays by name, returns a number"
        raise ConfigError(shown, "compute", "nothing", allowed)
    metric = _metric(name, constants)
    _check_bounds(metric, shown)
    taken = {column for other in SHIPPED.values() for column in (other.name, *other.shown)}
    for column in metric.shown:
        if column in taken:
            allowed = f"another one: a metric of Rankwise has the column {column}"
            raise ConfigError(shown, "file name", name, allowed)
    return metric


def _metric(name: str, constants: dict) -> Metric:
    label = constants["LABEL"]
    article = "an" if label[0].lower() in "aeiou" else "a"
    lowest, highest = constants["LOWEST"], constants["HIGHEST"]
    return Metric(
        name=name,
        label=label,
        phrase=f"{article} {label}",
        sign=1 if constants["HIGHER_IS_BETTER"] else -1,
        kind=FRACTION if name.endswith("_fraction") else DIFFERENCE,
        margin=name,
        scores=constants["SCORES"],
        lowest=-math.inf if lowest is None else lowest,
        highest=math.inf if highest is None else highest,
        own_margin=constants["MARGIN"],
    )


def _check_bounds(metric: Metric, shown: str) -> None:
    outer = {FRACTION: (0, 1), DIFFERENCE: (-math.inf, math.inf)}[metric.kind]
    if metric.name.endswith("_correlation"):
        outer = (-1, 1)
    if not outer[0] <= metric.lowest < metric.highest <= outer[1]:
        allowed = "LOWEST below HIGHEST"
        if math.isfinite(outer[0]):
            allowed += f", both from {outer[0]} to {outer[1]}, since the file's name says that unit"
        got = f"{metric.lowest:g} and {metric.highest:g}"
        raise ConfigError(shown, "LOWEST and HIGHEST", got, allowed)
