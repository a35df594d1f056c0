"""Draw the verdicts on published numbers."""

from rankwise.execution.job import produce
from rankwise.report.claims_figure import claims_figure

if __name__ == "__main__":
    produce(claims_figure)
