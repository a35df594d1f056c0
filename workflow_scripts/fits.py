"""Find the largest batches of one cell that fit."""

from rankwise.execution.job import run
from rankwise.measure.memory.fits import fits

if __name__ == "__main__":
    run(fits)
