"""Write the files that users of published systems know."""

from rankwise.execution.job import produce
from rankwise.report.exports import exports

if __name__ == "__main__":
    produce(exports)
