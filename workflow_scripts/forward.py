"""Profile the forward pass of one cell."""

from rankwise.execution.job import run
from rankwise.measure.speed.latency import forward

if __name__ == "__main__":
    run(forward)
