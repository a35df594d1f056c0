"""Choose the best trial of one cell's search."""

from rankwise.execution.job import run
from rankwise.study.search_choice import choose

if __name__ == "__main__":
    run(choose)
