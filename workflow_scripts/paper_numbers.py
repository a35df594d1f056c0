"""Write the summary's numbers for use in a text."""

from rankwise.execution.job import produce
from rankwise.report.numbers import numbers

if __name__ == "__main__":
    produce(numbers)
