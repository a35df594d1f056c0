"""Check where datasets and models come from, the hub or files, before any job starts.

Each problem is one sentence that names the file, the key, what was got and what is allowed. This
module uses the standard library only, so a login node can import it.
"""

import csv
import functools
import gzip
import io
import json
import os
import urllib.error
import urllib.request
from pathlib import Path

from rankwise.core import content, probe, settings
from rankwise.core.input_files import WEIGHTS
from rankwise.study.plan import Plan

HUB_TIMEOUT_S = 10
RESOLVE_S = 2  # for looking up the host's name, which the timeout of a connection does not cover


def repository(kind: str, name: str, plan: Plan) -> dict:
    """Where an entry is on the hub.

    Args:
        kind: "dataset" or "model".
        name: The entry's name.
        plan: Gives the library of entries.

    Returns:
        `repo` and `revision`; empty if the entry does not come from the hub.
    """
    entry = plan.library[f"{kind}s"][name]
    if kind == "dataset":
        return entry.get("hub", {})
    weights = entry["weights"]
    if "hub" not in weights:
        return {}
    return {"repo": weights["hub"], "revision": weights["revision"]}


def folder(kind: str, name: str, plan: Plan) -> str | None:
    """The folder of an entry that comes from files, as the entry writes it; None for other entries.

    Args:
        kind: "dataset" or "model".
        name: The entry's name.
        plan: Gives the library of entries.
    """
    entry = plan.library[f"{kind}s"][name]
    if kind == "dataset":
        return entry.get("files", {}).get("folder")
    return entry["weights"].get("files")


def missing(what: str, kind: str, name: str, plan: Plan) -> list[str]:
    """The problems of an entry's source: what of it cannot be had.

    Args:
        what: "hub" asks whether the hub can be reached, "files" whether the files are right. An
            entry has only one of them, and no problem with the other.
        kind: "dataset" or "model".
        name: The entry's name.
        plan: Gives the library of entries.

    Returns:
        One sentence per problem.
    """
    where = f"config/{kind}s.yaml: {name}"
    entry = plan.library[f"{kind}s"][name]
    if what == "hub":
        source = repository(kind, name, plan)
        return _hub_problems(f"{where}.hub", source["repo"]) if source else []
    if folder(kind, name, plan) is None:
        return []
    if kind == "model":
        return _model_problems(where, entry["weights"])
    return _dataset_problems(where, entry)


def changed(kind: str, name: str, plan: Plan) -> list[str]:
    """The files of an entry that are on this machine and are not those of its `sha256`.

    Args:
        kind: "dataset" or "model".
        name: The entry's name.
        plan: Gives the library of entries.

    Returns:
        One sentence per file.
    """
    given = folder(kind, name, plan)
    path = Path(os.path.expandvars(given)) if given else None
    if path is None or not path.is_dir():
        return []
    where, entry = f"config/{kind}s.yaml: {name}", plan.library[f"{kind}s"][name]
    checks = []  # key, file, SHA-256
    if kind == "model":
        checks.append((f"{where}.weights.sha256", path / WEIGHTS, entry["weights"]["sha256"]))
    else:
        for split, source in entry["splits"].items():
            key = f"{where}.splits.{split}"
            checks.append((key, path / source["path"], source.get("sha256")))
    problems = []
    for key, file, sha256 in checks:
        if file.is_file():
            problems += _file_problems(key, file, sha256)
    return problems


def hub_endpoint() -> str | None:
    """The address of the hub, or None if jobs only read its cache and report what it lacks."""
    is_offline = settings.read("HF_HUB_OFFLINE") not in ("", "0")
    return None if is_offline else settings.read("HF_ENDPOINT")


@functools.cache
def unreachable(endpoint: str) -> str | None:
    """Why the hub cannot be reached, or None if it answers at all. Asked once per process."""
    answers = probe.ask({"hub": lambda: _connect(endpoint)}, HUB_TIMEOUT_S + RESOLVE_S)
    return answers["hub"].get("trouble")


def _connect(endpoint: str) -> dict:
    try:
        urllib.request.urlopen(endpoint, timeout=HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        pass  # an error status is an answer, too
    except urllib.error.URLError as error:
        return {"trouble": str(error.reason)}
    return {}


def _hub_problems(where: str, repo: str) -> list[str]:
    endpoint = hub_endpoint()
    reason = unreachable(endpoint) if endpoint else None
    if not reason:
        return []
    allowed = "a reachable hub, or an entry with files"
    return [
        f"{where}: {repo} cannot be fetched, {endpoint} is unreachable: {reason}; "
        f"allowed: {allowed}"
    ]


def _folder_problems(where: str, given: str) -> list[str]:
    path = os.path.expandvars(given)
    if "$" in path:
        allowed = "a folder; set the environment variable in it first"
        return [f"{where}: got {given}, allowed: {allowed}"]
    if not Path(path).is_dir():
        return [f"{where}: got {path}, allowed: a folder that is there"]
    return []


def _file_problems(where: str, path: Path, sha256: str | None) -> list[str]:
    if not path.is_file():
        return [f"{where}: got {path}, allowed: a file that is there"]
    if not os.access(path, os.R_OK):
        return [f"{where}: got {path}, allowed: a file that can be read"]
    if sha256:
        found = content.sha256(path)
        if found != sha256:
            return [f"{where}: sha256 of {path} is {found}, allowed: {sha256}"]
    return []


def _model_problems(where: str, weights: dict) -> list[str]:
    problems = _folder_problems(f"{where}.weights.files", weights["files"])
    if problems:
        return problems
    file = Path(os.path.expandvars(weights["files"])) / WEIGHTS
    return _file_problems(f"{where}.weights.sha256", file, weights["sha256"])


def _dataset_problems(where: str, entry: dict) -> list[str]:
    given = entry["files"]["folder"]
    problems = _folder_problems(f"{where}.files.folder", given)
    if problems:
        return problems
    for split, source in entry["splits"].items():
        key = f"{where}.splits.{split}"
        file = Path(os.path.expandvars(given)) / source["path"]
        file_problems = _file_problems(key, file, source.get("sha256"))
        # The columns of a missing or wrong file are not looked at.
        problems += file_problems or _column_problems(key, file, entry)
    return problems


def _column_problems(where: str, file: Path, entry: dict) -> list[str]:
    """The entry's text and label columns that the file's first line does not have."""
    file_format = entry["files"]["format"]
    if file_format not in ("tsv", "csv", "jsonl"):
        return []
    present = _columns(file, file_format, entry.get("columns"))
    text = entry["text"] if isinstance(entry["text"], list) else [entry["text"]]
    label = [entry["label"]] if "label" in entry else []
    allowed = ", ".join(present)
    return [
        f"{where}: {file} has no column {name!r}, allowed: {allowed}"
        for name in [*text, *label]
        if name not in present
    ]


def _columns(file: Path, file_format: str, given: list[str] | None) -> list[str]:
    """The columns of a file: those that its entry gives, or those that its first line names."""
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", encoding="utf-8") as stream:
        first_line = stream.readline()
    if file_format == "jsonl":
        return list(json.loads(first_line))
    if given:
        return given
    delimiter = "\t" if file_format == "tsv" else ","
    return next(csv.reader(io.StringIO(first_line), delimiter=delimiter))
