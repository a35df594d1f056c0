"""Fine-tune one trial of a search."""

from rankwise.job import run
from rankwise.training import trial

if __name__ == "__main__":
    run(trial)
