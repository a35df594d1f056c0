"""Time one cell's training step."""

from rankwise.job import run
from rankwise.measure.throughput import throughput

if __name__ == "__main__":
    run(throughput)
