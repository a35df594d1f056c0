"""What every job does around its one library call: read the request, verify packages and sources, write the result."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from rankwise import provenance, result

ROOT = Path(__file__).resolve().parents[2]


def arguments() -> tuple[dict, Path]:
    """The request (JSON, or @FILE) and the output path of this process."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--request", required=True, help="the job's request as JSON, or @FILE that holds it or a result")
    parser.add_argument("--output", required=True, type=Path, help="the file to write")
    given = parser.parse_args()
    text = Path(given.request[1:]).read_text(encoding="utf-8") if given.request.startswith("@") else given.request
    request = json.loads(text)
    return request.get("request", request), given.output


def run(measure: Callable[..., dict], in_folder: bool = False) -> None:
    """Write `measure(request)` as a result, if every source is the planned one at the start and at the end.

    With `in_folder`, `measure` is also given the output's folder, for the files that lie beside the result.
    """

    def make(request: dict, output: Path) -> None:
        found = measure(request, output.parent) if in_folder else measure(request)
        verify(request)
        result.write(output, request, found, provenance.environment(ROOT / request["environment"]["lock"]))

    produce(make)


def produce(make: Callable[[dict, Path], None]) -> None:
    """Let `make(request, output)` write the output, if every source is the planned one at the start and at the end.

    The packages are looked at before anything else: a job in another environment does no work.
    """
    request, output = arguments()
    provenance.verify_environment(request["environment"], ROOT)
    verify(request)
    output.parent.mkdir(parents=True, exist_ok=True)
    make(request, output)
    verify(request)


def verify(request: dict) -> None:
    """Refuse to go on when a loaded source is not the planned one."""
    provenance.verify(request["code"], Path(sys.modules["__main__"].__file__).resolve())
