"""Requests as files: the JSON that alone decides a job's result.

A request can be larger than what a command line takes for one argument (128 KiB on Linux), and a
failing job would print all of it. So planning writes each request to
`results/.requests/{digest}.json`, and the job gets that path. The digest is the job's parameter
that Snakemake compares. The files are no inputs of any rule, so Snakemake never looks at their
times; the folder may be deleted at any time, and the next planning writes it anew.

Standard library only: the Snakefile imports this module.
"""

import json
from pathlib import Path

from rankwise.core import provenance, sealed
from rankwise.core.files import durable_write
from rankwise.core.paths import REQUESTS, SCRIPTS


class RequestChanged(RuntimeError):
    """A request file does not hold the request that its name says."""


def file(digest: str) -> Path:
    """The file of a request, relative to the project root."""
    return REQUESTS / f"{digest}.json"


def write(request: dict, root: Path = Path()) -> str:
    """Write a request to its file, unless it is there, and return its digest.

    The file appears whole, by a rename, so that a job never reads half of it.
    """
    digest = provenance.digest(request)
    path = root / file(digest)
    if not path.is_file():
        with durable_write(path, sync=False) as part:
            part.write_text(json.dumps(request, sort_keys=True), encoding="utf-8")
    return digest


def read(path: Path) -> dict:
    """Read a request from its file, or from a result, which stores the request that it answers.

    Raises:
        RequestChanged: The file lies among the requests, and its content has another digest than
            its name.
        Damaged: The file is a result that is not as it was written.
    """
    data = path.read_bytes()
    value = json.loads(data)
    if path.parent.name == REQUESTS.name:
        found = provenance.digest(value)
        if found != path.stem:
            raise RequestChanged(
                f"{path}: digest is {found}, allowed: {path.stem}, as the name says; "
                "delete the file and run snakemake again"
            )
    return sealed.content(data, path)["request"] if "request" in value else value


def rebuild_command(request: dict, path: str) -> str:
    """The command that makes a result again from the request that its own file holds.

    Args:
        request: The request that the result answers.
        path: The result, relative to the project root.
    """
    script = next(name for name in request["code"] if name.startswith(f"{SCRIPTS}/"))
    runner = f".venv/bin/python {script}"
    if not Path(SCRIPTS).is_dir():  # a project that uses the workflow as a module
        runner = f"python -m rankwise.execution.script {Path(script).stem}"
    return f"{runner} --request @{path} --output again/{Path(path).name}"


def title(request: dict) -> str:
    """The subject of a job, for its command line and its log."""
    if "cell" not in request:
        kind = "model" if "model" in request else "dataset"
        return f"{kind} {request['name']}"
    cell = request["cell"]
    words = [f"{cell['model']}/{cell['dataset']}", cell["method"], f"rank {cell['rank']}"]
    words += [f"{key} {cell[key]}" for key in ("trial", "seed", "evaluation") if key in cell]
    learning_rate = request.get("method", {}).get("learning_rate")
    if learning_rate is not None:
        words.append(f"learning rate {learning_rate:g}")
    return ", ".join(words)
