"""Fine-tune one cell."""

from rankwise.job import run
from rankwise.training import train

if __name__ == "__main__":
    run(train)
