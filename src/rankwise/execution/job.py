"""The frame of every job around its one library call.

A job reads its request, verifies that the packages and sources are the planned ones, calls the
library, and writes the result together with the request that it answers. The result goes to the
store, and Snakemake's output is a link to it. A result that the store has already is not computed.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rankwise.core import (
    documents,
    files,
    paths,
    progress,
    provenance,
    requests,
    result,
    settings,
    sound,
    store,
)
from rankwise.core import environment as installed
from rankwise.core.units import CUDA_CONTEXT_BYTES
from rankwise.execution import lifeline, processes

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
        in_folder: Also give `measure` the result's folder, for files that lie beside the result. Of
            several processes, the first one gets it, and the others get None.
    """

    def make(request: dict, output: Path) -> None:
        if output.parent.name == provenance.digest(request):
            _store(request, output, compute)
        else:  # a result that is made again from its own file, to be compared with it
            output.parent.mkdir(parents=True, exist_ok=True)
            compute(request, output)
        # Only now, when the result is on the disk: nothing that fails before loses the training.
        paths.remove_checkpoint(provenance.digest(request))

    def measured(request: dict, output: Path) -> dict:
        schedule = request.get("schedule", {})
        count = schedule.get("processes", 1)
        if count == 1:
            return measure(request, output.parent) if in_folder else measure(request)

        def in_one_process() -> dict:
            # Files beside the result are written by the first process alone.
            folder = output.parent if settings.read("RANK") == "0" else None
            content = measure(request, folder) if in_folder else measure(request)
            verify(request)  # this process has loaded sources that the job's process has not
            return content

        on_gpu = request["device"] == "cuda"
        return processes.together(in_one_process, count, request["cpu_threads"], on_gpu)

    def compute(request: dict, output: Path) -> None:
        start = time.perf_counter()
        share_bytes = json.loads(settings.read("RANKWISE_CARD")).get("share_bytes")
        if share_bytes:
            limit_gpu_memory(share_bytes)
        content = measured(request, output)
        if share_bytes and content.get("status") == "out_of_memory":
            print(
                f"out of memory with {share_bytes} bytes of a GPU; running again, alone on one",
                file=sys.stderr,
            )
            sys.exit(RUN_ALONE)
        verify(request)
        lifeline.check_planner()
        environment = installed.environment(paths.WORKFLOW / request["environment"]["lock"])
        job_time_s = time.perf_counter() - start
        result.write(output, request, content, {**environment, "job_time_s": job_time_s})
        verify(request)
        lifeline.check_planner()

    produce(make)


def _store(request: dict, output: Path, compute: Callable[[dict, Path], None]) -> None:
    """Compute a result into the store, unless it is there, and link to it.

    Raises:
        StoreError: The store cannot be written, or what it has is no result of this request.
    """
    digest, place = provenance.digest(request), store.place(request)
    kept = store.Store()
    with kept.locked(digest):
        found = sound.find(kept, place)
        if found:
            print(f"{found}: in the store already; nothing is computed", flush=True)
        else:
            with kept.part(place) as folder:
                compute(request, folder / Path(place).name)
            found = kept.folder / place
    store.link_result(found, store.check_answers(found, digest), output)


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
        _sweep(request, output)
        try:
            make(request, output)
        except OSError as error:
            if error.errno not in files.NO_ROOM:
                raise
            if not isinstance(error, files.CannotWrite):
                error = files.CannotWrite(error.errno, error.filename or output)
            sys.exit(f"{_kept_training(request)}{error}")
        except store.StoreError as error:
            sys.exit(f"{_kept_training(request)}{error}")
        except MemoryError as error:
            sys.exit(
                f"host memory ran out: {error or 'an object of Python could not be allocated'}"
            )
        verify(request)


def _sweep(request: dict, output: Path) -> None:
    """Remove the parts that killed jobs have left in the folders that this job writes to.

    Planning removes all parts, but Snakemake may start a job again without planning anew.
    """
    folders = [output.parent, paths.CHECKPOINTS, progress.FOLDER]
    if "document" in request:
        folders.append(Path(documents.made_file(*request["document"])).parent)
    for folder in folders:
        files.sweep(folder, below=False)
    files.sweep(paths.CACHE)


def _kept_training(request: dict) -> str:
    """The beginning of a sentence about a result that could not be written."""
    checkpoint = paths.checkpoint(provenance.digest(request))
    return f"the training is kept in {checkpoint}; " if checkpoint.is_file() else ""


def document(make: Callable[[dict, Path], None]) -> None:
    """Let `make(request, output)` write a table, a figure or a text, and note what it was made of.

    Raises:
        EnvironmentDiffers: A package is not the locked one.
        SourceChanged: A source file is not the planned one, at the start or at the end.
        Damaged: A table that it is made from was edited.
    """

    def write(request: dict, output: Path) -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        lifeline.check_planner()
        documents.check_reads(request)
        documents.forget(request)
        make(request, output)
        documents.note(request)

    produce(write)


def verify(request: dict) -> None:
    """Refuse to go on when a loaded source is not the planned one."""
    script = Path(sys.modules["__main__"].__file__).resolve()
    provenance.verify(request["code"], script)
