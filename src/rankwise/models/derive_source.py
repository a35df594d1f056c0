"""Where a model to be described lies: in a folder, or on the hub, whose weights stay there."""

import os
import re
from pathlib import Path
from typing import NamedTuple

import yaml

from rankwise.core import safetensors_files
from rankwise.core.paths import expand
from rankwise.core.safetensors_files import Tensor

UNKNOWN_LICENCE = "unknown, ask its author"
LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt")
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
SMALL_FILES = ("README.md", *LICENCES, "tokenizer_config.json")


class Source(NamedTuple):
    """A model's files.

    Attributes:
        folder: with config.json, and whatever else of the model is small.
        tensors: names and shapes of the weights.
        weights: as a models entry gives them; none of a folder without weights.
        name: of the weights, for messages.
        licence: in the words of the model's own files.
    """

    folder: Path
    tensors: dict[str, Tensor]
    weights: dict[str, str]
    name: str
    licence: str


def open_source(
    given: str, revision: str | None, project: Path, shapes_only: bool = False
) -> Source:
    """Find a model, in a folder if there is one of this name, else on the hub.

    Args:
        given: a path, possibly with ${VARIABLES}, or a repository on the hub.
        revision: branch, tag or commit on the hub; main if not given.
        project: the folder that the user works in.
        shapes_only: take the configuration alone.

    Raises:
        ValueError: there is no such model, or its weights are not safetensors; one sentence.
        FileNotFoundError: a variable in the path is not set.
    """
    folder = expand(given)
    if (project / folder).is_dir():
        if revision is not None:
            raise ValueError(f"--revision: got {revision}, allowed: nothing, {given} is a folder")
        if shapes_only:
            return Source(project / folder, {}, {}, given, licence(project / folder))
        return _from_folder(given, project / folder, project)
    is_below_a_folder = len(folder.parts) > 1 and (project / folder.parts[0]).is_dir()
    if not HUB_ID.fullmatch(given) or given.startswith(".") or is_below_a_folder:
        raise ValueError(
            f"{given}: got no such folder, allowed: a folder with config.json, or a repository on "
            "the hub (owner/name)"
        )
    return _from_hub(given, revision or "main", shapes_only)


def _from_folder(given: str, folder: Path, project: Path) -> Source:
    tensors = safetensors_files.tensors(folder)
    sha256 = safetensors_files.weights_sha256(folder, project)
    weights = {"files": _as_written(given, folder, project), "sha256": sha256}
    return Source(folder, tensors, weights, given, licence(folder))


def _as_written(given: str, folder: Path, project: Path) -> str:
    """The path for the entry: relative to the project where the folder lies below it."""
    if "$" in given:
        return given
    absolute, root = Path(os.path.abspath(folder)), Path(os.path.abspath(project))  # noqa: PTH100 - links stay
    if absolute.is_relative_to(root):
        return absolute.relative_to(root).as_posix()
    return given


# The hub ------------------------------------------------------------------------------------------


def _from_hub(repository: str, revision: str, shapes_only: bool) -> Source:
    """The small files of a repository, in the hub's cache, and its weights' headers."""
    config = _download(repository, revision, "config.json")
    if config is None:
        allowed = "a repository with config.json"
        raise ValueError(f"{repository}@{revision}: got no config.json, allowed: {allowed}")
    folder = config.parent
    commit = folder.name
    if not COMMIT.fullmatch(commit):
        raise ValueError(f"{repository}@{revision}: got {commit}, allowed: a commit of 40 digits")
    for name in SMALL_FILES:
        _download(repository, commit, name)
    if shapes_only:
        return Source(folder, {}, {}, repository, licence(folder))
    weights = {"hub": repository, "revision": commit}
    tensors = _hub_tensors(repository, commit, folder)
    return Source(folder, tensors, weights, repository, licence(folder))


def _download(repository: str, revision: str, name: str) -> Path | None:
    """A file of a repository in the cache, or None if the repository does not have it.

    Raises:
        ValueError: the repository, or its revision, cannot be read; or it is not in the cache, and
            there is no connection.
    """
    from huggingface_hub import errors, hf_hub_download  # noqa: PLC0415 - folders do without it

    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except errors.GatedRepoError:
        why = "its author must grant access; ask on its page, then log in: hf auth login"
    except errors.RepositoryNotFoundError:
        why = "there is no such repository, or it is private; log in: hf auth login"
    except errors.RevisionNotFoundError:
        why = f"there is no revision {revision}"
    except errors.LocalEntryNotFoundError as error:
        if name != "config.json":
            return None
        why = f"{name} is not in the cache, and the hub does not answer ({_first_line(error)})"
    except errors.EntryNotFoundError:
        return None
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        why = _first_line(error)
    raise ValueError(
        f"{repository}: is no folder here, and on the hub {why}; allowed: a folder with "
        "config.json, or a repository on the hub (owner/name)"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _hub_tensors(repository: str, commit: str, folder: Path) -> dict[str, Tensor]:
    """Names and shapes of the weights, from the cache if they are there, else from the hub."""
    from huggingface_hub import errors, get_safetensors_metadata  # noqa: PLC0415

    if any(folder.glob("*.safetensors")):
        return safetensors_files.tensors(folder)
    try:
        metadata = get_safetensors_metadata(repository, revision=commit)
    except errors.NotASafetensorsRepoError:
        allowed = f"{safetensors_files.WEIGHTS}, or shards with an index"
        raise ValueError(
            f"{repository}: got no weights as safetensors, allowed: {allowed}; pickles can run "
            "code when they are loaded, and are not read"
        ) from None
    except (errors.SafetensorsParsingError, errors.HfHubHTTPError, OSError, ValueError) as error:
        raise ValueError(
            f"{repository}: the headers of its weights cannot be read ({_first_line(error)}); try "
            "again with a connection, or download the weights first: hf download "
            f"{repository} --revision {commit}"
        ) from None
    return {
        name: Tensor(facts.dtype, tuple(facts.shape))
        for file in metadata.files_metadata.values()
        for name, facts in file.tensors.items()
    }


# Licences -----------------------------------------------------------------------------------------


def licence(folder: Path) -> str:
    """The licence that a model's own files give; it is never guessed.

    Args:
        folder: of the model. `license` in the front matter of README.md comes first, then the first
            lines of a file LICENSE.
    """
    named = _front_matter(folder).get("license_name") or _front_matter(folder).get("license")
    if isinstance(named, str) and named not in ("other", "unknown"):
        return named
    for name in LICENCES:
        title = _title(_read(folder / name))
        if title:
            return title
    return UNKNOWN_LICENCE


def _front_matter(folder: Path) -> dict:
    """The YAML between two lines of dashes at the start of README.md."""
    match = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", _read(folder / "README.md"), re.DOTALL)
    try:
        value = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError:
        return {}
    return value if isinstance(value, dict) else {}


def _title(text: str) -> str:
    """The first line of a licence, with its version where this is the second line."""
    lines = [line.strip(" #\t") for line in text.splitlines() if line.strip(" #\t")]
    if len(lines) > 1 and lines[1].startswith("Version"):
        return f"{lines[0]}, {lines[1]}"
    return lines[0] if lines else ""


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return ""
