"""Gather one measurement's results into a tidy table."""

from rankwise.job import produce
from rankwise.report.gather import gather

if __name__ == "__main__":
    produce(gather)
