"""Kept weights beside a run: linked, collected, verified, removed and cleaned with it."""

import hashlib
import json
import socket
from pathlib import Path

import pytest

from helpers.merging import TEXT, own_store, planned_jobs, small_project
from helpers.stored import change, store_result
from rankwise.audit import leftovers, store_collect, store_contents, store_remove, stored
from rankwise.core import result, store
from rankwise.core.store_parts import StoreError
from rankwise.study.jobs import PlannedJob
from rankwise.study.plan import read_plan
from rankwise.study.settle import settle

FILES = {"adapter/adapter_config.json": b"{}", "adapter/adapter_model.safetensors": b"weights"}
RUN = "train tiny/generated_reviews/lora/r2/seed0"
STUDY = "config/mine.yaml"


def keep_run(root: Path) -> tuple[PlannedJob, Path]:
    """A training run with an adapter in the store of a project: its job, and its file."""
    job = planned_jobs(root)[RUN]

    def make(folder: Path) -> dict:
        (folder / "adapter").mkdir()
        for name, data in FILES.items():
            (folder / name).write_bytes(data)
        sha256 = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
        weights = {"kind": "adapter", "files": sha256, "bytes": sum(map(len, FILES.values()))}
        return {"metrics": {"accuracy_fraction": 0.5}, "weights": weights}

    return job, store_result(root, job.request, make)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return small_project(tmp_path / "one")


def test_planning_links_the_weights_beside_their_run(project: Path) -> None:
    job, file = keep_run(project)
    settle(read_plan(project, STUDY))
    folder = (project / job.path).parent / "adapter"
    assert folder.is_symlink()
    assert folder.resolve() == (file.parent / "adapter").resolve()
    assert (folder / "adapter_model.safetensors").read_bytes() == b"weights"


def test_another_clones_weights_come_with_their_run(project: Path, tmp_path: Path) -> None:
    _, file = keep_run(project)
    other = small_project(tmp_path / "two")
    store_collect.collect([str(project)], other)
    copied = own_store(other) / file.relative_to(own_store(project))
    assert {name: (copied.parent / name).read_bytes() for name in FILES} == FILES
    assert not store_contents.verify(other)["stores"][0]["problems"]


def test_a_run_without_one_of_its_files_is_not_collected(project: Path, tmp_path: Path) -> None:
    _, file = keep_run(project)
    (file.parent / "adapter/adapter_model.safetensors").unlink()
    other = small_project(tmp_path / "two")
    with pytest.raises(StoreError, match=r"adapter_model.safetensors: SHA-256: got no such file"):
        store_collect.collect([str(project)], other)
    assert not list(own_store(other).rglob("train.json"))


def test_changed_weights_are_found(project: Path) -> None:
    _, file = keep_run(project)
    (file.parent / "adapter/adapter_model.safetensors").write_bytes(b"others")
    (problem,) = store_contents.verify(project)["stores"][0]["problems"]
    assert problem.startswith(f"{file.parent}/adapter/adapter_model.safetensors: SHA-256: got ")


def test_a_file_beside_the_weights_belongs_to_no_result(project: Path) -> None:
    _, file = keep_run(project)
    (file.parent / "adapter/note.txt").write_text("mine")
    (problem,) = store_contents.verify(project)["stores"][0]["problems"]
    assert "note.txt: belongs to no result" in problem


def test_a_removed_run_takes_its_weights_and_both_links_along(project: Path) -> None:
    job, file = keep_run(project)
    settle(read_plan(project, STUDY))
    (item,) = store_remove.named(project, [file.relative_to(own_store(project)).as_posix()])
    assert item.size_bytes == sum(map(len, FILES.values())) + file.stat().st_size
    store_remove.remove([item], project)
    assert not file.parent.exists()
    assert not list((project / "results/mine/runs").rglob("*")), job.path


def test_a_run_that_is_no_longer_planned_is_cleaned_with_its_link_to_weights(project: Path) -> None:
    _, file = keep_run(project)
    settle(read_plan(project, STUDY))
    (project / STUDY).write_text(TEXT.replace("seeds: [0]", "seeds: [5]"))
    plan = read_plan(project, STUDY)
    leftovers.clean(plan, leftovers.leftovers(plan))
    assert not list((project / "results/mine/runs").rglob("*"))
    assert (file.parent / "adapter/adapter_model.safetensors").is_file()


def test_a_copy_that_followed_the_links_is_adopted_with_its_weights(project: Path) -> None:
    job, file = keep_run(project)
    content = {name: (file.parent / name).read_bytes() for name in ("train.json", *FILES)}
    store_remove.remove(
        store_remove.named(project, [file.relative_to(own_store(project)).as_posix()]), project
    )
    copy = (project / job.path).parent
    (copy / "adapter").mkdir(parents=True)
    for name, data in content.items():
        (copy / name).write_bytes(data)
    settle(read_plan(project, STUDY))
    assert {name: (file.parent / name).read_bytes() for name in content} == content
    assert (copy / "adapter").is_symlink()
    assert json.loads((copy / "train.json").read_bytes())["weights"]["kind"] == "adapter"


def test_a_name_that_leads_out_of_the_folder_is_no_result(project: Path) -> None:
    _, file = keep_run(project)
    weights = result.read(file)["weights"]
    change(file, weights={**weights, "files": {"adapter/../../x.json": "0" * 64}})
    with pytest.raises(StoreError, match="holds a name that is no name of a folder"):
        stored.read(file)


def test_a_store_whose_job_was_killed_while_it_wrote_has_no_run(project: Path) -> None:
    """What a killed job leaves is hidden, and the next job for the same request removes it."""
    job = planned_jobs(project)[RUN]
    final = own_store(project) / Path(job.place).parent
    left = final.with_name(f".part-{final.name}-{socket.gethostname()}-999999999")
    (left / "adapter").mkdir(parents=True)
    (left / "adapter/adapter_model.safetensors").write_bytes(b"half")
    (own_store(project) / "version.json").write_text('{"version": 1}')
    assert store.Store(project).find(job.place) is None
    _, file = keep_run(project)
    assert not left.exists()
    assert (file.parent / "adapter/adapter_model.safetensors").read_bytes() == b"weights"
