"""Fine-tune one cell."""

from rankwise.execution.job import run
from rankwise.training.run import train

if __name__ == "__main__":
    run(train, in_folder=True)
