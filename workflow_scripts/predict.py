"""Predict the memory and the FLOPs of one cell's training."""

from rankwise.execution.job import run
from rankwise.measure.predict import predict

if __name__ == "__main__":
    run(predict)
