"""Estimate every curve and compare every pair."""

from rankwise.analysis.evidence import evidence
from rankwise.execution.job import produce

if __name__ == "__main__":
    produce(evidence)
