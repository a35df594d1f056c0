"""Time one cell's training step."""

from rankwise.execution.job import run
from rankwise.measure.speed.throughput import throughput

if __name__ == "__main__":
    run(throughput)
