"""Profile the memory of one cell."""

from rankwise.job import run
from rankwise.measure.memory import memory

if __name__ == "__main__":
    run(memory)
