"""Pre-train one tiny model on its corpus."""

from rankwise.execution.job import run
from rankwise.training.pretrain import pretrain

if __name__ == "__main__":
    run(pretrain, in_folder=True)
