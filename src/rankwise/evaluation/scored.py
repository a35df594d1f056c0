"""The result of an evaluation, one value an example."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scored:
    """The scores of an evaluation.

    Attributes:
        documents: What tells the examples apart: a digest of each.
        scores: Metric (`{quantity}_fraction`) -> the score of each example, from 0 to 1.
        details: What else is known of each example by name, such as its log-likelihoods or the
            text that was generated.
        truncated: How many examples lost the beginning of their prompt, because prompt and answer
            were longer than the model's positions.
    """

    documents: list[str]
    scores: dict[str, list[float]]
    details: dict[str, list] = field(default_factory=dict)
    truncated: int = 0
