"""Profile the memory that one cell keeps between steps."""

from rankwise.execution.job import run
from rankwise.measure.memory.persistent import memory

if __name__ == "__main__":
    run(memory)
