"""Draw the verdicts on published numbers."""

from rankwise.execution.job import document
from rankwise.report.claims_figure import claims_figure

if __name__ == "__main__":
    document(claims_figure)
