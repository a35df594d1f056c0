"""Pre-train one tiny model on its corpus."""

from rankwise.job import run
from rankwise.pretrain import pretrain

if __name__ == "__main__":
    run(pretrain, in_folder=True)
