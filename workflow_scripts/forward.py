"""Profile the forward pass of one cell."""

from rankwise.job import run
from rankwise.measure.forward import forward

if __name__ == "__main__":
    run(forward)
