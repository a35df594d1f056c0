"""Find the largest batch of one cell that fits each memory size."""

from rankwise.execution.job import run
from rankwise.measure.memory.fits import fits

if __name__ == "__main__":
    run(fits)
