"""Profile the peak memory of one cell's training step, by kind of tensor."""

from rankwise.execution.job import run
from rankwise.measure.memory.ledger import ledger

if __name__ == "__main__":
    run(ledger)
