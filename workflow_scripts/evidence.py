"""Estimate the metric of every curve and compare every pair of curves."""

from rankwise.analysis.evidence import evidence
from rankwise.execution.job import document

if __name__ == "__main__":
    document(evidence)
