"""Before Snakemake looks: what the store has is linked, and what is not as planned is marked."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.repository import ROOT
from helpers.stored import finish, store_result
from rankwise.core import documents, provenance, store
from rankwise.study import jobs
from rankwise.study.jobs import PlannedJob
from rankwise.study.plan import Plan
from rankwise.study.settle import settle

GRID = {
    "models": ["tiny"],
    "datasets": ["generated_reviews"],
    "methods": ["full", "lora"],
    "ranks": [2],
    "seeds": [0],
}
STUDY = {"name": "settled", "question": "?", "device": "cpu", "schedule": {"updates": 9}}
TIME_2000_NS = 946_684_800 * 10**9  # 1 January 2000, by another clock than the code's
TABLE = "tables/runs.csv"


def plan_in(root: Path) -> Plan:
    for name in ("config", "envs", "workflow_scripts", "pyproject.toml"):
        if not (root / name).exists():
            (root / name).symlink_to(ROOT / name)
    return Plan({**STUDY, "train": [GRID]}, root, "config/settled.yaml")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_in(tmp_path)


def training(plan: Plan) -> PlannedJob:
    return jobs.cell_jobs(plan, "train")[0]


def stored(plan: Plan, job: PlannedJob) -> Path:
    return store_result(plan.root, job.request, lambda _: {})


# Results ------------------------------------------------------------------------------------------


def test_a_result_in_the_store_is_linked(plan: Plan) -> None:
    job = training(plan)
    file, link = stored(plan, job), plan.root / job.path
    found = settle(plan)
    assert found.fetched == [job]
    assert len(found.missing) == len(jobs.result_jobs(plan)) - 1
    assert not link.readlink().is_absolute()
    assert link.resolve() == file.resolve()
    for facts in (link.lstat(), link.stat()):
        assert facts.st_mtime_ns == TIME_2000_NS
    assert settle(plan).fetched == []


def test_a_link_that_leads_nowhere_is_mended_or_removed(plan: Plan) -> None:
    job = training(plan)
    file, link = stored(plan, job), plan.root / job.path
    settle(plan)
    link.unlink()
    link.symlink_to("nowhere")
    assert settle(plan).fetched == [job]
    assert link.resolve() == file.resolve()
    shutil.rmtree(file.parent)
    assert job in settle(plan).missing
    assert not os.path.lexists(link)


def test_times_of_a_copy_are_settled(plan: Plan) -> None:
    job = training(plan)
    stored(plan, job)
    settle(plan)
    link = plan.root / job.path
    link.resolve().touch()
    os.utime(link, follow_symlinks=False)
    settle(plan)
    assert link.lstat().st_mtime_ns == link.stat().st_mtime_ns == TIME_2000_NS


def test_a_result_that_is_a_file_of_its_own_is_taken_into_the_store(plan: Plan) -> None:
    """`cp -rL` leaves such files."""
    job = training(plan)
    file, link = stored(plan, job), plan.root / job.path
    content = file.read_bytes()
    link.parent.mkdir(parents=True)
    shutil.move(file, link)
    assert job in settle(plan).fetched
    assert link.is_symlink() and link.read_bytes() == content
    assert file.read_bytes() == content


def flipped(data: bytes) -> bytes:
    """With one bit of the byte in the middle changed."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [flipped, lambda data: data[:-9], lambda _: b""])
@pytest.mark.parametrize("is_linked", [True, False])
def test_a_damaged_result_is_set_aside_and_planned_again(
    damage: Callable[[bytes], bytes],
    is_linked: bool,
    plan: Plan,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = training(plan)
    file = stored(plan, job)
    if is_linked:
        settle(plan)
    facts = file.stat()
    damaged = damage(file.read_bytes())
    file.write_bytes(damaged)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert job in settle(plan).missing
    aside = file.parent.with_name(f"{job.digest}.damaged-1")
    assert (aside / "train.json").read_bytes() == damaged
    assert not os.path.lexists(plan.root / job.path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{file}: it") and f"set aside as {aside.name}" in line
    again = stored(plan, job)
    assert settle(plan).fetched == [job]
    assert (plan.root / job.path).samefile(again)


def test_a_result_of_another_run_is_planned_again(plan: Plan) -> None:
    """Copied over the link, it is written into the store; put in its place, it is a file."""
    first, second = jobs.cell_jobs(plan, "train")[:2]
    files = [stored(plan, job) for job in (first, second)]
    settle(plan)
    link = plan.root / first.path
    shutil.copyfile(files[1], link)
    found = settle(plan)
    assert first in found.missing and second not in found.missing
    stored(plan, first)
    settle(plan)
    link.unlink()
    shutil.copyfile(files[1], link)
    assert settle(plan).fetched == [first], "its own result is in the store"
    assert link.samefile(files[0])
    assert link.with_name("train.json.damaged-1").read_bytes() == files[1].read_bytes()
    link.unlink()
    link.symlink_to(files[1])
    assert settle(plan).fetched == [first]
    assert link.samefile(files[0])


def test_a_damaged_result_of_a_store_that_is_only_read_is_passed_over(
    plan: Plan, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, elsewhere = training(plan), tmp_path_factory.mktemp("other")
    file = stored(plan_in(elsewhere), job)
    file.write_bytes(flipped(file.read_bytes()))
    monkeypatch.setenv("RANKWISE_STORE", f"{plan.root}/own:{elsewhere}/results/store")
    assert job in settle(plan).missing
    assert file.is_file()


def test_a_result_that_was_found_sound_is_not_read_again(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = training(plan)
    stored(plan, job)
    monkeypatch.setattr("rankwise.core.sound.TICK_NS", 0)
    settle(plan)
    monkeypatch.setattr("rankwise.core.sealed.problem", lambda *_: pytest.fail("read again"))
    assert job not in settle(plan).missing


def test_a_shared_store_is_linked_by_its_own_path(
    plan: Plan,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, elsewhere = training(plan), tmp_path_factory.mktemp("other")
    shared = stored(plan_in(elsewhere), job)
    monkeypatch.setenv("RANKWISE_STORE", str(tmp_path / "own") + f":{elsewhere}/results/store")
    settle(plan)
    assert str((plan.root / job.path).readlink()) == str(shared)
    monkeypatch.setenv("RANKWISE_STORE", f"{tmp_path}/own:{tmp_path}/nothing")
    with pytest.raises(store.StoreError, match="nothing, allowed: folders that exist"):
        settle(plan)


# Documents ----------------------------------------------------------------------------------------


@pytest.fixture
def made(plan: Plan) -> Plan:
    """A plan whose results and tables of runs are there, and the figure of quality by rank."""
    for job in jobs.result_jobs(plan):
        finish(plan.root, job)
    for job in chain(plan):
        make(plan, job)
    return plan


def chain(plan: Plan) -> list[PlannedJob]:
    """The table of runs, its scores, the intervals, and a figure of both."""
    names = (TABLE, "tables/examples.parquet", "tables/estimates.csv", "figures/metric_by_rank.png")
    return [jobs.document(plan, name) for name in names]


def make(plan: Plan, job: PlannedJob) -> None:
    """What a job of a document leaves."""
    for path in job.outputs:
        file = plan.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"made by {job.rule}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(plan.root)
        documents.note(job.request)


def outdated(plan: Plan) -> list[str]:
    """Which documents of the chain are marked: their note is newer than they are."""
    names = []
    settle(plan)
    for job in chain(plan):
        note = plan.root / documents.planned_file(*job.request["document"])
        newest_ns = max((plan.root / path).stat().st_mtime_ns for path in (job.outputs))
        if note.stat().st_mtime_ns > newest_ns:
            names.append(job.request["document"][1])
    return names


def test_a_document_of_planned_files_is_as_planned(made: Plan) -> None:
    assert outdated(made) == []
    assert outdated(made) == []


def test_an_edited_document_is_made_anew_whatever_the_times(made: Plan) -> None:
    figure, estimates = "figures/metric_by_rank.png", "tables/estimates.csv"
    edited = {"figures/metric_by_rank.svg": [figure], "tables/estimates.md": [estimates, figure]}
    for name, expected in edited.items():
        file = made.root / made.output(name)
        facts, content = file.stat(), file.read_text()
        file.write_text("changed by hand")
        os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        assert outdated(made) == expected
        file.write_text(content)
        assert outdated(made) == []


def test_a_job_refuses_an_edited_table(made: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made.root)
    table = made.output("tables/estimates.csv")
    request = jobs.document(made, "figures/metric_by_rank.png").request
    assert table in request["reads"]
    documents.check_reads(request)
    Path(table).write_text("changed by hand")
    with pytest.raises(
        ValueError, match=rf"{table}: it was edited: sha256 is \w+, allowed: \w+, as"
    ):
        documents.check_reads(request)


def test_another_request_marks_a_document_and_all_that_is_made_of_it(made: Plan) -> None:
    """The note of what it was made from is of another request."""
    job = jobs.document(made, TABLE)
    note = made.root / documents.made_file(*job.request["document"])
    content = json.loads(note.read_text())
    assert content["request"] == provenance.digest(job.request)
    note.write_text(json.dumps({**content, "request": "0" * 16}))
    assert outdated(made) == [TABLE, "tables/estimates.csv", "figures/metric_by_rank.png"]
    note.unlink()
    assert outdated(made) == [TABLE, "tables/estimates.csv", "figures/metric_by_rank.png"]


def test_a_lost_result_marks_what_is_made_of_it(made: Plan) -> None:
    shutil.rmtree((made.root / training(made).path).resolve().parent)
    expected = [TABLE, "tables/examples.parquet", "tables/estimates.csv"]
    assert outdated(made) == [*expected, "figures/metric_by_rank.png"]


def test_a_document_is_never_older_than_what_it_is_made_from(made: Plan) -> None:
    """A copy gives its files times in any order."""
    for number, job in enumerate(reversed(chain(made))):
        for path in job.outputs:
            os.utime(made.root / path, (1_800_000_000 + number, 1_800_000_000 + number))
    assert outdated(made) == []
    times = {
        path: (made.root / path).stat().st_mtime for job in chain(made) for path in job.outputs
    }
    for job in chain(made):
        reads = [times[path] for path in job.inputs if path in times]
        assert all(min(times[path] for path in job.outputs) >= time for time in reads)
