"""Profile the memory of one cell's training step."""

from rankwise.job import run
from rankwise.measure.ledger import ledger

if __name__ == "__main__":
    run(ledger)
