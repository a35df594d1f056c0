"""Where datasets and models come from, the hub or files, and what of it cannot be had: looked at before any job starts.

Standard library only. Each problem is one sentence that names the file, the key, what was got and what is allowed.
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

from rankwise.core import probe, provenance, settings
from rankwise.study.plan import Plan

HUB_TIMEOUT_S = 10


def repository(kind: str, name: str, plan: Plan) -> dict:
    """`repo` and `revision` of a dataset or model (`kind`) from the hub; nothing of any other."""
    entry = plan.library[f"{kind}s"][name]
    if kind == "dataset":
        return entry.get("hub", {})
    weights = entry["weights"]
    return {"repo": weights["hub"], "revision": weights["revision"]} if "hub" in weights else {}


def folder(kind: str, name: str, plan: Plan) -> str | None:
    """The folder of a dataset or model from files, as its entry names it."""
    entry = plan.library[f"{kind}s"][name]
    return (
        entry.get("files", {}).get("folder") if kind == "dataset" else entry["weights"].get("files")
    )


def missing(what: str, kind: str, name: str, plan: Plan) -> list[str]:
    """What is missing of a dataset or model: of its `hub`, or of its `files`."""
    where, entry = f"config/{kind}s.yaml: {name}", plan.library[f"{kind}s"][name]
    if what == "hub":
        found = repository(kind, name, plan)
        return _hub(f"{where}.hub", found["repo"]) if found else []
    if folder(kind, name, plan) is None:
        return []
    return (
        _model_files(where, entry["weights"]) if kind == "model" else _dataset_files(where, entry)
    )


def hub_endpoint() -> str | None:
    """Where the hub is; None where it is not asked, for the cache is used, and says itself what it lacks."""
    offline = settings.read("HF_HUB_OFFLINE") not in ("", "0")
    return None if offline else settings.read("HF_ENDPOINT")


@functools.cache
def unreachable(endpoint: str) -> str | None:
    """Why a hub cannot be reached, asked once; None if it answers, whatever it says."""
    asked = probe.ask(
        {"hub": lambda: _knock(endpoint)}, HUB_TIMEOUT_S + 2
    )  # a limit for the look-up of the name, too
    return asked["hub"].get("trouble")


def _knock(endpoint: str) -> dict:
    try:
        urllib.request.urlopen(endpoint, timeout=HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except urllib.error.URLError as error:
        return {"trouble": str(error.reason)}
    return {}


def _hub(where: str, repo: str) -> list[str]:
    endpoint = hub_endpoint()
    if endpoint is None or not (why := unreachable(endpoint)):
        return []
    allowed = "a reachable hub, or an entry with files"
    return [
        f"{where}: {repo} cannot be fetched, {endpoint} is unreachable: {why}; allowed: {allowed}"
    ]


def _folder(where: str, given: str) -> tuple[Path, list[str]]:
    path = os.path.expandvars(given)
    if "$" in path:
        return Path(path), [
            f"{where}: got {given}, allowed: a folder; set the environment variable in it first"
        ]
    return Path(path), (
        [] if Path(path).is_dir() else [f"{where}: got {path}, allowed: a folder that is there"]
    )


def _file(where: str, path: Path, sha256: str | None) -> list[str]:
    if not path.is_file():
        return [f"{where}: got {path}, allowed: a file that is there"]
    if sha256 and (found := provenance.file_sha256(path)) != sha256:
        return [f"{where}: sha256 of {path} is {found}, allowed: {sha256}"]
    return []


def _model_files(where: str, weights: dict) -> list[str]:
    path, found = _folder(f"{where}.weights.files", weights["files"])
    return found or _file(f"{where}.weights.sha256", path / "model.safetensors", weights["sha256"])


def _dataset_files(where: str, entry: dict) -> list[str]:
    place, found = _folder(f"{where}.files.folder", entry["files"]["folder"])
    if found:
        return found
    for split, wanted in entry["splits"].items():
        key = f"{where}.splits.{split}"
        found += _file(key, place / wanted["path"], wanted.get("sha256")) or _columns(
            key, place / wanted["path"], entry
        )
    return found


def _columns(where: str, path: Path, entry: dict) -> list[str]:
    """Text and label columns that the first line of the file has not."""
    form = entry["files"]["format"]
    if form not in ("tsv", "csv", "jsonl"):
        return []
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as stream:
        first = stream.readline()
    if form == "jsonl":
        there = list(json.loads(first))
    else:
        there = entry.get("columns") or next(
            csv.reader(io.StringIO(first), delimiter="\t" if form == "tsv" else ",")
        )
    text = entry["text"] if isinstance(entry["text"], list) else [entry["text"]]
    wanted = [*text, *([entry["label"]] if "label" in entry else [])]
    return [
        f"{where}: {path} has no column {name!r}, allowed: {', '.join(there)}"
        for name in wanted
        if name not in there
    ]
