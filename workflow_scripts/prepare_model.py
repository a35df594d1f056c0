"""Download or copy one pretrained model into results/inputs."""

from rankwise.data.model_files import prepare_model
from rankwise.execution.job import run

if __name__ == "__main__":
    run(prepare_model, in_folder=True)
