"""Estimate what every curve reaches on each evaluation, and compare every pair of curves."""

from rankwise.analysis.evaluations import evidence
from rankwise.execution.job import document

if __name__ == "__main__":
    document(evidence)
