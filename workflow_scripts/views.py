"""Compute the Pareto fronts and the best curve within each budget."""

from rankwise.analysis.pareto import views
from rankwise.execution.job import document

if __name__ == "__main__":
    document(views)
