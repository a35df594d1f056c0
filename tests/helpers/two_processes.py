"""Two spawned processes that meet on ports of this machine."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from torch import multiprocessing

LONGEST_S = 300


def free_ports(count: int) -> list[int]:
    with ExitStack() as bound:
        sockets = [bound.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]


@contextmanager
def spawned(work: Callable, *arguments: object) -> Iterator[None]:
    """`work(number, *arguments)` in processes 0 and 1, beside the body; both have ended behind it."""
    started = multiprocessing.spawn(work, arguments, nprocs=2, join=False)
    try:
        yield
        until = time.monotonic() + LONGEST_S
        while not started.join(timeout=1):
            assert time.monotonic() < until, "the processes wait for each other"
    finally:
        for process in started.processes:
            process.kill()
