"""Bring one dataset into results/inputs."""

from rankwise.datasets import prepare_dataset
from rankwise.job import run

if __name__ == "__main__":
    run(prepare_dataset, in_folder=True)
