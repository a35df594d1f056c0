"""Check where datasets and models come from, the hub or files, before any job starts.

Each problem is one sentence that names the file, the key, what was got and what is allowed. This
module loads the standard library only, so a login node can import it.
"""

import functools
import os
import urllib.error
import urllib.request
from pathlib import Path

from rankwise.core import content, probe, settings
from rankwise.core.dataset_defaults import MESSAGES, PROMPT
from rankwise.core.safetensors_files import tensors, weight_files, weights_sha256
from rankwise.data import reading
from rankwise.data.record import label_columns, text_columns
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
    problems = _folder_problems(f"{where}.files.folder", entry["files"]["folder"])
    if problems:
        return problems
    looked_at = []  # a share of train has train's file
    for split, source in entry["splits"].items():
        file = (source["path"], source.get("sha256"))
        if file not in looked_at:
            problems += _split_problems(where, entry, split)
        looked_at.append(file)
    return problems


def wrong_splits(name: str, plan: Plan) -> list[str]:
    """The splits of a dataset from files whose file is missing or not as the entry says.

    Args:
        name: The entry's name.
        plan: Gives the library of entries.
    """
    where, entry = f"config/datasets.yaml: {name}", plan.library["datasets"][name]
    if _folder_problems(where, entry["files"]["folder"]):
        return list(entry["splits"])
    return [split for split in entry["splits"] if _split_problems(where, entry, split)]


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
    if kind == "model":
        return (
            _weights_problems(where, path, entry["weights"]["sha256"]) if _has_weights(path) else []
        )
    problems = []
    for split, source in entry["splits"].items():
        file = path / source["path"]
        if file.is_file():
            problems += _file_problems(f"{where}.splits.{split}", file, source.get("sha256"))
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
    return _weights_problems(where, Path(os.path.expandvars(weights["files"])), weights["sha256"])


def _has_weights(path: Path) -> bool:
    """Whether a folder has weights that can be read, all shards included."""
    try:
        return bool(weight_files(path))
    except ValueError:
        return False


def _weights_problems(where: str, path: Path, sha256: str) -> list[str]:
    """The mistakes in the weights of a model's folder, which exists."""
    try:
        files = weight_files(path)
        found = weights_sha256(path)
    except ValueError as error:
        return [f"{where}.weights.files: {error}"]
    except OSError as error:
        return [
            f"{where}.weights.files: got {error.filename}, allowed: a file that can be read "
            f"({error.strerror})"
        ]
    if found == sha256:
        return _header_problems(where, path)
    named = path / files[0]
    of = f"{named} and its shards" if len(files) > 1 else named
    return [f"{where}.weights.sha256: sha256 of {of} is {found}, allowed: {sha256}"]


def _header_problems(where: str, path: Path) -> list[str]:
    """Why safetensors could not read the weights of a folder."""
    try:
        tensors(path)
    except ValueError as error:
        return [f"{where}.weights.files: {error}"]
    return []


def _split_problems(where: str, entry: dict, split: str) -> list[str]:
    """The mistakes in the file of one split, whose folder exists."""
    key, source = f"{where}.splits.{split}", entry["splits"][split]
    file = Path(os.path.expandvars(entry["files"]["folder"])) / source["path"]
    # The columns of a missing or wrong file are not looked at.
    return _file_problems(key, file, source.get("sha256")) or _column_problems(key, file, entry)


def _column_problems(where: str, file: Path, entry: dict) -> list[str]:
    """The entry's text and label columns that the file's first row does not have."""
    try:
        present = reading.columns(file, entry)
    except ValueError as error:
        return [f"{where}: {error}"]
    if present is None:
        return []
    if not present:
        return [f"{where}: {file} has no rows, allowed: a file with a row at least"]
    allowed = ", ".join(present)
    if MESSAGES in present and PROMPT in entry:
        allowed += f"; for rows with messages, write `{MESSAGES}: {MESSAGES}` into the entry"
    return [
        f"{where}: {file} has no column {name!r}, allowed: {allowed}"
        for name in [*text_columns(entry), *label_columns(entry)]
        if name not in present
    ]
