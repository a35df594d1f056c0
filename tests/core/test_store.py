"""The store keeps whole results, each once: what happens when a disk is full, a process is killed, two results meet."""

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.disks import small_disk
from rankwise.core import provenance, result, sealed
from rankwise.core.store import Store, StoreError, check_answers, link, place

CELL = {"model": "m", "dataset": "d", "method": "lora", "rank": 2, "seed": 0}
REQUEST = {"measurement": "train", "cell": CELL, "method": {"learning_rate": 0.1}}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RANKWISE_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def keep(store: Store, request: dict = REQUEST, **found: object) -> Path:
    """Write a result as a job does."""
    where = place(request)
    with store.locked(provenance.digest(request)), store.part(where) as part:
        result.write(
            part / Path(where).name,
            request,
            {"metrics": {"accuracy_fraction": 0.5}, **found},
            {"processor": "P"},
        )
    return store.folder / where


def everything(folder: Path = Path()) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_a_result_lies_under_the_digest_of_its_request(project: Path) -> None:
    file = keep(Store())
    digest = provenance.digest(REQUEST)
    assert str(file) == f"results/store/runs/m/d/lora/r2/seed0/{digest}/train.json"
    assert json.loads(Path("results/store/version.json").read_text()) == {"version": 1}
    assert everything(project / "results/store") == [
        f"runs/m/d/lora/r2/seed0/{digest}/train.json",
        "version.json",
    ]
    assert check_answers(file, digest)["metrics"] == {"accuracy_fraction": 0.5}


def test_a_job_that_fails_leaves_nothing() -> None:
    store = Store()
    with (
        pytest.raises(ZeroDivisionError),
        store.locked("0" * 16),
        store.part(place(REQUEST)) as part,
    ):
        (part / "half").write_text("half")
        raise ZeroDivisionError
    assert everything(store.folder) == ["version.json"]


# A second result ------------------------------------------------------------------------------------------------------


def test_a_second_result_that_differs_in_times_alone_is_dropped(
    capsys: pytest.CaptureFixture,
) -> None:
    first = keep(Store(), cost={"train_time_s": 1.0})
    before = first.read_bytes()
    keep(Store(), cost={"train_time_s": 9.0})
    assert first.read_bytes() == before
    assert "the same in all but times" in capsys.readouterr().out
    assert everything(Path("results/store")) == [
        str(first.relative_to("results/store")),
        "version.json",
    ]


def test_a_second_result_that_differs_is_kept_beside_the_first_and_its_job_fails() -> None:
    first = keep(Store())
    before = first.read_bytes()
    for number, accuracy in ((1, 0.25), (2, 0.125)):
        second = first.parent.with_name(f"{first.parent.name}.differs-{number}") / "train.json"
        with pytest.raises(StoreError) as refused:
            keep(Store(), metrics={"accuracy_fraction": accuracy})
        words = str(refused.value)
        assert (
            f"metrics.accuracy_fraction: got 0.5 in {first} (cpu, P) but {accuracy} in {second} (cpu, P)"
            in words
        )
        assert result.read(second)["metrics"] == {"accuracy_fraction": accuracy}
    assert first.read_bytes() == before
    assert Store().find(place(REQUEST)) == first


def test_of_two_measured_times_the_first_stays() -> None:
    request = {**REQUEST, "measurement": "throughput"}
    first = keep(Store(), request, metrics={"tokens_per_s": 1.0})
    before = first.read_bytes()
    keep(Store(), request, metrics={"tokens_per_s": 2.0})
    assert first.read_bytes() == before
    assert not list(first.parents[1].glob("*differs*"))


def test_a_torn_result_is_kept_and_named() -> None:
    file = keep(Store())
    file.write_text('{"half')
    with pytest.raises(StoreError, match=f"{file}: cannot be read: it does not begin with"):
        keep(Store())
    assert file.read_text() == '{"half'


def test_a_result_that_was_deleted_by_hand_comes_back_with_new_data_files() -> None:
    file = keep(Store())
    file.unlink()
    file.with_name("stale.arrow").write_text("stale")
    assert keep(Store()).is_file()
    assert [path.name for path in file.parent.iterdir()] == ["train.json"]


# What a killed process leaves -----------------------------------------------------------------------------------------


def test_what_a_dead_process_left_goes_and_what_is_of_others_stays() -> None:
    store = Store()
    folder = keep(store).parent
    shutil.rmtree(folder)
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = os.uname().nodename
    gone, own, far, odd = (
        folder.with_name(f".part-{folder.name}-{name}")
        for name in (f"{host}-{dead.pid}", f"{host}-1", "elsewhere-1", f"{host}-x")
    )
    for part in (gone, own, far, odd):
        part.mkdir()
    keep(store)
    assert [part.is_dir() for part in (gone, own, far, odd)] == [False, True, True, True]


# Disks and folders that cannot be used --------------------------------------------------------------------------------


@pytest.fixture
def disk(project: Path) -> Iterator[Path]:
    with small_disk(project / "disk") as folder:
        yield folder


def test_a_full_disk_is_one_sentence_and_leaves_no_half_result(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKWISE_STORE", "disk/store")
    keep(Store())
    before = everything(disk)
    other = {**REQUEST, "method": {"learning_rate": 0.2}}
    with pytest.raises(
        StoreError,
        match=r"disk/store: No space left on device; nothing was stored. Allowed: a folder that can",
    ):
        keep(Store(), other, examples={"accuracy_fraction": [0.5] * 100_000})
    assert everything(disk) == before


def test_a_read_only_disk_is_one_sentence_and_can_be_read_behind_another_store(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKWISE_STORE", "disk/store")
    file = keep(Store())
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    before = everything(disk)
    with pytest.raises(StoreError, match="disk/store: Read-only file system; nothing was stored"):
        keep(Store(), {**REQUEST, "method": {"learning_rate": 0.2}})
    with pytest.raises(StoreError, match="disk/store: cannot be written"):
        Store().check_writable()
    monkeypatch.setenv("RANKWISE_STORE", "own:disk/store")
    assert Store().find(place(REQUEST)) == file
    assert keep(Store(), {**REQUEST, "method": {"learning_rate": 0.2}}).is_relative_to("own")
    assert everything(disk) == before


def test_a_file_where_the_store_should_be_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("mine")
    for name in ("file", "file/below"):
        monkeypatch.setenv("RANKWISE_STORE", name)
        with pytest.raises(StoreError, match=f"{name}: .*; nothing was stored"):
            keep(Store())
    assert Path("file").read_text() == "mine"


@pytest.mark.parametrize(("files", "message"), [
    ({"version.json": '{"version": 2}'}, r"version.json: version: got 2, allowed: 1; use the release of Rankwise that made this store"),
    ({"version.json": "{"}, r'version.json: got something else, allowed: {"version": 1}'),
    ({"photo.jpg": "x"}, r"got a folder without version.json, allowed: a store, or an empty folder"),
])  # fmt: skip
@pytest.mark.parametrize("variable", ["shared", "own:shared"])
def test_a_folder_that_is_no_store_of_this_version_is_named(
    variable: str, files: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("shared").mkdir()
    for name, text in files.items():
        Path("shared", name).write_text(text)
    monkeypatch.setenv("RANKWISE_STORE", variable)
    with pytest.raises(StoreError, match=f"shared.*{message}"):
        Store()
    assert everything(Path("shared")) == list(files)


def test_a_further_store_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKWISE_STORE", "own:nowhere")
    with pytest.raises(
        StoreError, match="RANKWISE_STORE: got nowhere, allowed: folders that exist"
    ):
        Store()
    assert not Path("own").exists()


def test_a_foreign_file_in_place_of_a_result_is_named() -> None:
    file, digest = keep(Store()), provenance.digest(REQUEST)
    another = sealed.text({"request": {"a": 1}})
    for text in (another, '{"request": {"a": 1}}', "[]", "{", ""):
        file.write_text(text)
        with pytest.raises(
            StoreError, match=f"{file}: it .*; allowed: a result of request {digest}"
        ):
            check_answers(file, digest)


def test_a_disk_without_locks_still_keeps_results(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert keep(Store()).is_file()


# Links ----------------------------------------------------------------------------------------------------------------


def test_a_link_into_the_project_moves_with_it_and_one_to_a_shared_store_names_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = Path("results/mine/runs/train.json")
    link(keep(Store()), inside)
    assert not inside.readlink().is_absolute()
    monkeypatch.setenv("RANKWISE_STORE", "../shared")
    root = project / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    shared = keep(Store())
    link(shared, inside)
    assert inside.readlink() == project / "shared" / place(REQUEST)
    assert inside.resolve() == shared.resolve()
    shutil.rmtree(project / "shared")
