"""Write the numbers of the summary as macros for a paper."""

from rankwise.execution.job import produce
from rankwise.report.numbers import numbers

if __name__ == "__main__":
    produce(numbers)
