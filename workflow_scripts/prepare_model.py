"""Bring one pretrained model into results/inputs."""

from rankwise.job import run
from rankwise.snapshots import prepare_model

if __name__ == "__main__":
    run(prepare_model, in_folder=True)
