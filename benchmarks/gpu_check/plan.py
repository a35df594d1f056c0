"""The parts of a check, the most valuable ones first."""

from typing import NamedTuple


class Part(NamedTuple):
    """One part.

    Attributes:
        name: On the command line and in the report.
        title: What it measures.
        share: Of the time of all parts, in any unit.
        least_s: With less time left, it is not started.
        module: Has `run(check)`.
    """

    name: str
    title: str
    share: float
    least_s: int

    @property
    def module(self) -> str:
        """The dotted name of its module."""
        return f"benchmarks.gpu_check.parts.{self.name}"


PARTS = (
    Part("matrix", "predicted against measured peak memory", 170, 10),
    Part("cuda_tests", "the tests that need a GPU (tests/gpu)", 90, 10),
    Part("boundary", "the largest batch that `fits` predicts, and the next one", 70, 10),
    Part("resume", "a training that is stopped or killed, and resumed", 50, 10),
    Part("speed", "seconds a step, beside other people's code", 60, 10),
    Part("packing", "small trainings one after another, and sharing the GPU", 50, 10),
    Part("energy", "seconds, FLOP utilisation and joules of an update", 40, 5),
)
