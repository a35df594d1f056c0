"""What every job does around its one library call: read the request, verify packages and sources, write the result."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rankwise.core import environment as installed
from rankwise.core import provenance, result
from rankwise.core.units import CUDA_CONTEXT_BYTES

ROOT = Path(__file__).resolve().parents[3]
ALONE = 75  # tells warm.py to run the job again, alone on a card


def arguments() -> tuple[dict, Path]:
    """The request (JSON, or @FILE) and the output path of this process."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument(
        "--request",
        required=True,
        help="the job's request as JSON, or @FILE that holds it or a result",
    )
    parser.add_argument("--output", required=True, type=Path, help="the file to write")
    given = parser.parse_args()
    text = (
        Path(given.request[1:]).read_text(encoding="utf-8")
        if given.request.startswith("@")
        else given.request
    )
    request = json.loads(text)
    return request.get("request", request), given.output


def run(measure: Callable[..., dict], in_folder: bool = False) -> None:
    """Write `measure(request)` as a result, if every source is the planned one at the start and at the end.

    With `in_folder`, `measure` is also given the output's folder, for the files that lie beside the result.
    """

    def make(request: dict, output: Path) -> None:
        start = time.perf_counter()
        share = json.loads(os.environ.get("RANKWISE_CARD", "{}")).get("share_bytes")
        if share:
            stay_within(share)
        found = measure(request, output.parent) if in_folder else measure(request)
        if share and found.get("status") == "out_of_memory":
            print(
                f"out of memory with {share} bytes of a card, so this job is run again, alone on one",
                file=sys.stderr,
            )
            sys.exit(ALONE)
        verify(request)
        environment = installed.environment(ROOT / request["environment"]["lock"])
        result.write(
            output, request, found, {**environment, "job_time_s": time.perf_counter() - start}
        )

    produce(make)


def stay_within(share: int) -> None:
    """Let this process fail before it takes memory of a card (bytes) that others were promised."""
    cuda = sys.modules["torch"].cuda
    if cuda.is_available():
        total = cuda.get_device_properties(0).total_memory
        cuda.set_per_process_memory_fraction(min(1.0, max(0, share - CUDA_CONTEXT_BYTES) / total))


def produce(make: Callable[[dict, Path], None]) -> None:
    """Let `make(request, output)` write the output, if every source is the planned one at the start and at the end.

    The packages are looked at before anything else: a job in another environment does no work.
    """
    request, output = arguments()
    installed.verify_environment(request["environment"], ROOT)
    verify(request)
    output.parent.mkdir(parents=True, exist_ok=True)
    make(request, output)
    verify(request)


def verify(request: dict) -> None:
    """Refuse to go on when a loaded source is not the planned one."""
    provenance.verify(request["code"], Path(sys.modules["__main__"].__file__).resolve())
