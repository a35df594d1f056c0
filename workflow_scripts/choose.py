"""Choose among the trials of one cell's search."""

from rankwise.job import run
from rankwise.settled import choose

if __name__ == "__main__":
    run(choose)
