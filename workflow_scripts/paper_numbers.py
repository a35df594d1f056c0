"""Write the numbers of the summary for use in a LaTeX text or a program."""

from rankwise.execution.job import document
from rankwise.report.numbers import numbers

if __name__ == "__main__":
    document(numbers)
