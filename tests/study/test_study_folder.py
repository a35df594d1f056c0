"""A study's folder is that of one study."""

import json
import shutil
from pathlib import Path

import pytest

from helpers.merging import keep, planned_jobs, small_project
from helpers.stored import change
from rankwise.core import result
from rankwise.core.config import ConfigError
from rankwise.core.store import Store, StoreError
from rankwise.study.plan import read_plan
from rankwise.study.settle import settle

STUDY, OTHER = "config/mine.yaml", "config/other.yaml"
OWNER = "results/mine/.study.json"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RANKWISE_STORE", raising=False)
    return small_project(tmp_path / "here")


def owner(here: Path) -> str:
    return json.loads((here / OWNER).read_text())["file"]


def test_two_studies_of_one_name_are_refused(here: Path) -> None:
    settle(read_plan(here, STUDY))
    assert owner(here) == STUDY
    shutil.copy(here / STUDY, here / OTHER)
    before = sorted((here / "results").rglob("*"))
    with pytest.raises(
        ConfigError,
        match=r"config/other\.yaml: name: got 'mine', allowed: another name: config/mine\.yaml has it already, and its files are in results/mine/",
    ):
        settle(read_plan(here, OTHER))
    assert sorted((here / "results").rglob("*")) == before
    settle(read_plan(here, STUDY))


@pytest.mark.parametrize("change", [
    lambda file: file.rename(file.with_name("other.yaml")),
    lambda file: (shutil.copy(file, file.with_name("other.yaml")), file.write_text(file.read_text().replace("name: mine", "name: new"))),
    lambda file: (shutil.copy(file, file.with_name("other.yaml")), file.write_text("name: [mine")),
    lambda file: (shutil.copy(file, file.with_name("other.yaml")), file.write_text("- mine")),
    lambda file: file.with_name("other.yaml").symlink_to(file.name),
])  # fmt: skip
def test_a_study_may_move_to_another_file(change: object, here: Path) -> None:
    settle(read_plan(here, STUDY))
    change(here / STUDY)
    plan = read_plan(here, OTHER)
    settle(plan)
    assert owner(here) == plan.file


def test_a_note_that_is_torn_is_written_anew(here: Path) -> None:
    settle(read_plan(here, STUDY))
    for text in ("{", "[]", "{}"):
        (here / OWNER).write_text(text)
        settle(read_plan(here, STUDY))
        assert owner(here) == STUDY


def test_a_copy_that_disagrees_with_the_store_is_named_and_stays(here: Path) -> None:
    jobs = planned_jobs(here)
    job = jobs["train tiny/generated_reviews/lora/r2/seed0"]
    (kept,) = keep(here, job)
    copy = here / job.path
    copy.parent.mkdir(parents=True)
    shutil.copyfile(kept, copy)
    change(copy, metrics={"accuracy_fraction": 0.125})
    with pytest.raises(
        StoreError,
        match=rf"{copy}: metrics\.accuracy_fraction: got 0\.5 in {kept} .* but 0\.125 in {copy}",
    ):
        settle(read_plan(here, STUDY))
    assert result.read(copy)["metrics"] == {"accuracy_fraction": 0.125}
    shutil.copyfile(kept, copy)
    change(copy, cost={"train_time_s": 9.0})
    settle(read_plan(here, STUDY))
    assert copy.is_symlink()
    assert copy.resolve() == Store(here).find(job.place).resolve()
