"""The metrics that a run may report: their columns, units, directions and margins.

A metric is declared here once. Tables, figures, the page and LaTeX read the declaration; none of
them knows a metric by name. How a metric is computed from the scores of examples is in
`rankwise.analysis.metrics`. Standard library only, since a study is planned with it.
"""

from typing import NamedTuple

FRACTION, CORRELATION, LOGARITHM = "fraction", "correlation", "logarithm"


class Metric(NamedTuple):
    """What people and tables must know of a metric.

    Attributes:
        name: Its column in the table of runs, `{quantity}_{unit}`.
        label: Its name in headings.
        phrase: Its name in a sentence, with the article.
        sign: 1 if more is better, -1 if less is.
        kind: How two values are compared. FRACTION: their difference, shown in points of per cent.
            CORRELATION: their difference, -1 to 1, as it is. LOGARITHM: the difference of their
            logarithms, shown as a ratio; intervals are made on the logarithm, too.
        margin: Key of a study's `equivalence` with the smallest difference that matters.
    """

    name: str
    label: str
    phrase: str
    sign: int
    kind: str
    margin: str

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
        """What a value is multiplied by for people."""
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
        if self.is_fraction:
            return f"{self.label}{split} (%)"
        direction = "" if self.sign > 0 else "\n(lower is better)"
        return f"{self.label}{split}{direction}"

    @property
    def shown(self) -> tuple[str, str, str]:
        """Its column in the summary, and the columns of the ends of its interval."""
        stem, unit = self.name, ""
        if self.is_fraction:
            stem, unit = self.name.removesuffix("_fraction"), "_percent"
        return f"{stem}{unit}", f"{stem}_low{unit}", f"{stem}_high{unit}"


def _fraction(name: str, label: str, phrase: str, margin: str) -> Metric:
    return Metric(f"{name}_fraction", label, phrase, 1, FRACTION, margin)


def _correlation(name: str, label: str) -> Metric:
    full_name = f"{name}_correlation"
    return Metric(full_name, label, f"a {label}", 1, CORRELATION, "correlation")


_METRICS = (
    _fraction("accuracy", "accuracy", "an accuracy", "accuracy_fraction"),
    Metric("perplexity", "perplexity", "a perplexity", -1, LOGARITHM, "perplexity_ratio"),
    _fraction("macro_f1", "macro F1", "a macro F1", "f1_fraction"),
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
    ),
    _fraction("micro_f1", "micro F1", "a micro F1", "f1_fraction"),
    _fraction("span_f1", "span F1", "a span F1", "f1_fraction"),
    _fraction("exact_match", "exact match", "an exact match", "exact_match_fraction"),
)
METRICS = {metric.name: metric for metric in _METRICS}
