"""Which kernels a job computes with. Standard library only."""

import importlib
from contextlib import AbstractContextManager, nullcontext


def kernels(request: dict) -> AbstractContextManager:
    """The context in which a request is computed.

    Args:
        request: Of a training run, a trial, an evaluation or a timed profile. With
            `deterministic`, the context allows deterministic kernels only.
    """
    if not request.get("deterministic"):
        return nullcontext()
    # By name, so that other requests do not depend on it.
    return importlib.import_module("rankwise.training.determinism").deterministic()
