"""Copy the kept weights of a run into a folder, with a model card; push that folder to the hub.

The folder is written beside its place and renamed when it is whole.
"""

import importlib
import shutil
from pathlib import Path
from typing import NamedTuple

from rankwise.audit import trace
from rankwise.core import provenance, result, sound, tasks
from rankwise.core.config import ConfigError
from rankwise.core.files import part_of
from rankwise.core.store import Store, check_answers, input_place
from rankwise.report import model_card
from rankwise.study import keep, search_choice, text_outputs
from rankwise.study.jobs import PlannedJob
from rankwise.study.plan import Plan

COMMAND = "rankwise export"
CARD = "README.md"


class Exported(NamedTuple):
    """The files of an export.

    Attributes:
        folder: The folder.
        format: peft, parameters or merged.
        bytes: Of all files.
        run: The digest of the run's request.
    """

    folder: str
    format: str
    bytes: int
    run: str


def export(
    cell: str, folder: Path, root: Path, study: str | None = None, merge: bool = False
) -> Exported:
    """Write the weights that a run has kept, and their model card.

    Args:
        cell: The run: `MODEL/DATASET/METHOD/rRANK/seedSEED`, its train.json, or rows of a table as
            `rankwise trace` takes them.
        folder: Where to; a folder that is empty or not there.
        root: The project's folder.
        study: The study's file; found by the results if None.
        merge: Write one merged model, where the run has kept an adapter.

    Raises:
        ConfigError: The cell is not one training run, or the folder is not empty.
        ValueError: The run is not there, or has kept no weights.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(COMMAND, "--to", str(folder), "a folder that is empty or not there")
    plan, job = trace.training_run(cell, root, study)
    file = Store(root).find(job.place)
    if file is None:
        raise ValueError(
            f"{job.path}: not there, allowed: a run that has ended; "
            f"run {text_outputs.command(plan, job.path)}"
        )
    run = check_answers(file, job.digest)
    _check_kept(job, run)
    method = search_choice.method(run)
    part = part_of(folder)
    part.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(part, ignore_errors=True)
    try:
        _write_weights(plan, job, run, method, file, part, merge)
        written = result.read_json(part / "rankwise.json")["format"]
        facts = _facts(plan, job, written)
        (part / CARD).write_text(model_card.card(run, method, facts), encoding="utf-8")
        if folder.is_dir():
            folder.rmdir()
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return Exported(str(folder), written, size, job.digest)


def _check_kept(job: PlannedJob, run: dict) -> None:
    """Check that a run has ended well and has kept weights."""
    if run["status"] != "ok":
        raise ValueError(
            f"{job.path}: status: got {run['status']}, allowed: ok, because a run that failed "
            "keeps no weights"
        )
    if "weights" not in run:
        allowed = keep.allowed(search_choice.method(run), run["request"]["model"])
        kinds = " or ".join(allowed) or "a method that trains"
        raise ValueError(
            f"{job.path}: keep: got none, allowed: {kinds}; set `keep` in the training grid of "
            "this run, and run snakemake again: it reruns the runs of that grid alone"
        )


def _write_weights(
    plan: Plan, job: PlannedJob, run: dict, method: dict, file: Path, target: Path, merge: bool
) -> None:
    kind = run["weights"]["kind"]
    if merge and kind != keep.MERGED:
        reason = keep.refusals(method, run["request"]["model"]).get(keep.MERGED)
        if reason:
            name = job.cell.method_name
            raise ConfigError(COMMAND, "--merge", name, f"methods that merge; {name} {reason}")
        # torch takes seconds, and a copy needs none
        importlib.import_module("rankwise.training.kept").merge(
            file, _base_folder(plan, run), target
        )
        return
    for name, expected in run["weights"]["files"].items():
        kept = file.parent / name
        found = provenance.file_sha256(kept) if kept.is_file() else "no such file"
        if found != expected:
            remedy = sound.remedy(file, Store(plan.root))
            raise ValueError(
                f"{kept}: SHA-256: got {found}, allowed: {expected}, as train.json says; {remedy}"
            )
    shutil.copytree(file.parent / kind, target)


def _base_folder(plan: Plan, run: dict) -> Path:
    """The folder of the prepared base of a run.

    Raises:
        ValueError: It is not there.
    """
    request = run["request"]
    place = input_place("model", request["cell"]["model"], request["inputs"]["model"])
    found = Store(plan.root).find(place)
    if found is None:
        raise ValueError(f"{place}: not in the store, which merging needs; run snakemake again")
    return found.parent


def _facts(plan: Plan, job: PlannedJob, written: str) -> model_card.Facts:
    cell = job.cell
    entry = plan.library["methods"][cell.method]
    model, dataset = plan.library["models"][cell.model], plan.library["datasets"][cell.dataset]
    return model_card.Facts(
        label=entry.get("label", cell.method),
        source=entry.get("source", model_card.UNKNOWN),
        licence=model.get("licence"),
        data_licence=dataset.get("licence"),
        auto_class=tasks.facts(dataset["task"]).auto_class,
        format=written,
        command=text_outputs.command(plan, job.path),
        digest=job.digest,
    )


def push(folder: Path, repository: str) -> str:
    """Upload an export to the hub; the repository is made as a private one if it is not there.

    The hub's own settings hold: HF_TOKEN, HF_ENDPOINT.

    Args:
        folder: The export.
        repository: `owner/name`.

    Returns:
        The address of the commit.

    Raises:
        ValueError: There is no token, or the hub refuses.
    """
    hub = importlib.import_module("huggingface_hub")
    errors = importlib.import_module("huggingface_hub.errors")
    if not hub.get_token():
        raise ValueError(
            f"{COMMAND}: --push: got no token of the hub, allowed: one that may write to "
            f"{repository}; run `hf auth login`, or set HF_TOKEN. The export is in {folder}"
        )
    api = hub.HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=folder)
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{COMMAND}: --push: got {repository}: {reason}; the export is in {folder}"
        ) from error
    return str(commit.commit_url)
