"""Draw one figure."""

from rankwise.execution.job import produce
from rankwise.report.draw import draw

if __name__ == "__main__":
    produce(draw)
