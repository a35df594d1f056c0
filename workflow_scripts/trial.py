"""Fine-tune one cell as a trial of a search."""

from rankwise.execution.job import run
from rankwise.training.run import trial

if __name__ == "__main__":
    run(trial)
