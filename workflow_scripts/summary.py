"""Make the paper's table."""

from rankwise.analysis.summary import summarise
from rankwise.execution.job import produce

if __name__ == "__main__":
    produce(summarise)
