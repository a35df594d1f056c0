"""Estimate every curve and compare every pair."""

from rankwise.job import produce
from rankwise.report.evidence import evidence

if __name__ == "__main__":
    produce(evidence)
