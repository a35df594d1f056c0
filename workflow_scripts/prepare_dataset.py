"""Download, copy or generate one dataset into results/inputs."""

from rankwise.data.datasets import prepare_dataset
from rankwise.execution.job import run

if __name__ == "__main__":
    run(prepare_dataset, in_folder=True)
