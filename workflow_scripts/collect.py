"""Collect the results of one measurement in a tidy table."""

from rankwise.analysis.gather import gather
from rankwise.execution.job import document

if __name__ == "__main__":
    document(gather)
