"""Find the largest batches of one cell that fit."""

from rankwise.job import run
from rankwise.measure.fits import fits

if __name__ == "__main__":
    run(fits)
