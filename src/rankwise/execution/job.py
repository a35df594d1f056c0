"""What every job does around its one library call.

A job reads its request, verifies that the packages and sources are the planned ones, calls the
library, and writes the result together with the request that it answers.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rankwise.core import environment as installed
from rankwise.core import paths, progress, provenance, requests, result, settings
from rankwise.core.units import CUDA_CONTEXT_BYTES

# A job that exits with this status ran out of its share of a GPU; worker_client runs it again.
RUN_ALONE = 75


def arguments() -> tuple[dict, Path]:
    """Read this process's command line.

    Returns:
        The request and the path of the output.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument(
        "--request",
        required=True,
        help="the job's request: @FILE that holds it or a result that answers it, or JSON",
    )
    parser.add_argument("--output", required=True, type=Path, help="the file to write")
    parser.add_argument("--title", help="what the job computes, for its log; decides nothing")
    given = parser.parse_args()
    if given.title:
        print(given.title, flush=True)
    if given.request.startswith("@"):
        return requests.read(Path(given.request[1:])), given.output
    request = json.loads(given.request)
    return request.get("request", request), given.output


def run(measure: Callable[..., dict], in_folder: bool = False) -> None:
    """Write `measure(request)` as a result.

    Args:
        measure: The library call. It takes the request, and returns the result's content.
        in_folder: Also give `measure` the output's folder, for files that lie beside the result.
    """

    def make(request: dict, output: Path) -> None:
        start = time.perf_counter()
        share_bytes = json.loads(settings.read("RANKWISE_CARD")).get("share_bytes")
        if share_bytes:
            limit_gpu_memory(share_bytes)
        content = measure(request, output.parent) if in_folder else measure(request)
        if share_bytes and content.get("status") == "out_of_memory":
            print(
                f"out of memory with {share_bytes} bytes of a GPU; running again, alone on one",
                file=sys.stderr,
            )
            sys.exit(RUN_ALONE)
        verify(request)
        environment = installed.environment(paths.WORKFLOW / request["environment"]["lock"])
        job_time_s = time.perf_counter() - start
        result.write(output, request, content, {**environment, "job_time_s": job_time_s})

    produce(make)


def limit_gpu_memory(share_bytes: int) -> None:
    """Let this process fail before it takes GPU memory that other jobs were promised."""
    cuda = sys.modules["torch"].cuda
    if cuda.is_available():
        total_bytes = cuda.get_device_properties(0).total_memory
        usable_bytes = max(0, share_bytes - CUDA_CONTEXT_BYTES)
        cuda.set_per_process_memory_fraction(min(1.0, usable_bytes / total_bytes))


def produce(make: Callable[[dict, Path], None]) -> None:
    """Let `make(request, output)` write the output, between two checks of every source.

    The packages are checked first: a job in another environment does no work.

    Raises:
        EnvironmentDiffers: A package is not the locked one.
        SourceChanged: A source file is not the planned one, at the start or at the end.
    """
    request, output = arguments()
    with progress.reported(request):
        installed.verify_environment(request["environment"], paths.WORKFLOW)
        verify(request)
        output.parent.mkdir(parents=True, exist_ok=True)
        make(request, output)
        verify(request)


def verify(request: dict) -> None:
    """Refuse to go on when a loaded source is not the planned one."""
    script = Path(sys.modules["__main__"].__file__).resolve()
    provenance.verify(request["code"], script)
