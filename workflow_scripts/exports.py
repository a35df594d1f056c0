"""Export the results in the file formats of published systems A and C."""

from rankwise.execution.job import document
from rankwise.report.exports import exports

if __name__ == "__main__":
    document(exports)
