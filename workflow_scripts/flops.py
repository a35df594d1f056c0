"""Profile the FLOPs of one cell."""

from rankwise.execution.job import run
from rankwise.measure.flops.count import flops

if __name__ == "__main__":
    run(flops)
