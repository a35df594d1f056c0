"""Profile the FLOPs of one cell."""

from rankwise.job import run
from rankwise.measure.flops import flops

if __name__ == "__main__":
    run(flops)
