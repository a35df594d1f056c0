"""Evaluate the kept weights of one cell on one task."""

from rankwise.evaluation.run import evaluate
from rankwise.execution.job import run

if __name__ == "__main__":
    run(evaluate)
