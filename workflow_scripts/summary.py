"""Make the paper's table."""

from rankwise.job import produce
from rankwise.report.summary import summarise

if __name__ == "__main__":
    produce(summarise)
