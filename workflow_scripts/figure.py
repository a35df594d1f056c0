"""Draw one figure."""

from rankwise.execution.job import document
from rankwise.report.draw import draw

if __name__ == "__main__":
    document(draw)
