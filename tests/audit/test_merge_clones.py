"""Results of several clones come together: what answers the plan is copied, once, and nothing that disagrees."""

import os
import re
from pathlib import Path

import pytest

from helpers.merging import (
    CELL,
    DATASET,
    MEMORY,
    MODEL,
    TIMES,
    TRAIN,
    bring,
    change,
    consistent,
    contents,
    planned_jobs,
    plant,
    three_places,
)
from rankwise.cli.collect_text import text
from rankwise.core import result
from rankwise.core.compare import result_difference
from rankwise.study.jobs import PlannedJob

SELECTED = f"results/search/{CELL}/selected.json"
DAY_NS = 86_400 * 10**9


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PlannedJob]:
    return planned_jobs(tmp_path_factory.mktemp("plan"))


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, Path]:
    return three_places(tmp_path)


# Small clones, results by hand ----------------------------------------------------------------------------------------


def test_jobs_come_after_what_they_read(planned: dict[str, PlannedJob]) -> None:
    place = {path: number for number, path in enumerate(planned)}
    assert all(place[read] < place[path] for path, job in planned.items() for read in job.inputs)
    assert {job.rule for job in planned.values()} == {
        "prepare_dataset", "pretrain_model", "trial", "choose", "train", "memory", "throughput", "predict",
    }  # fmt: skip
    assert set(planned[TRAIN].inputs) == {DATASET, MODEL, SELECTED}


def test_what_is_planned_comes_once_and_all_else_stays_where_it_is(places, planned) -> None:
    here, one, other = places
    half = len(planned) // 2
    plant(one, planned, *list(planned)[:half])
    plant(other, planned, *list(planned)[half - 2 :])
    extra = "results/runs/tiny/generated_reviews/lora/r64/seed0/train.json"
    result.write(one / extra, {"cell": {}}, {}, {})
    found = bring(here, one, other / "results")
    of_one, of_other = found["places"][1:]
    assert [*of_one["taken"], *of_other["taken"]] == list(planned)
    assert (of_one["unplanned"], len(of_other["same"])) == (1, 2)
    assert found["missing"] == found["notes"] == []
    assert {**contents(other), **contents(one)} == {
        **contents(here),
        extra: (one / extra).read_bytes(),
    }
    assert consistent(here, planned)
    before = {file: (here / file).stat().st_mtime_ns for file in contents(here)}
    again = bring(here, one, other)
    assert len(again["places"][0]["taken"]) == len(planned)
    assert {file: (here / file).stat().st_mtime_ns for file in contents(here)} == before


def test_a_dry_run_says_the_same_and_copies_nothing(places, planned) -> None:
    here, one, _ = places
    plant(one, planned)
    said = bring(here, one, dry_run=True)
    assert contents(here) == {}
    assert not (here / ".snakemake").exists()
    assert "would be copied" in text(said)
    assert {**bring(here, one), "dry_run": True} == said


def test_a_stale_result_stays_away_and_says_why(places, planned) -> None:
    here, one, _ = places
    plant(one, planned)
    request = planned[TRAIN].request
    code = {**request["code"], "rankwise.methods.lora": "0" * 16}
    change(one / TRAIN, request={**request, "code": code})
    change(
        one / MEMORY,
        request={
            **planned[MEMORY].request,
            "shapes": {**planned[MEMORY].request["shapes"], "batch_size": 99},
        },
    )
    found = bring(here, one)
    assert found["places"][1]["stale"] == {
        TRAIN: ["src/rankwise/methods/lora.py changed"],
        MEMORY: [f"shapes.batch_size: 99 -> {planned[MEMORY].request['shapes']['batch_size']}"],
    }
    assert found["missing"] == [TRAIN, MEMORY]
    assert not (here / TRAIN).exists()
    assert "1 stale: src/rankwise/methods/lora.py changed" in text(found)


def test_a_stale_result_here_makes_way_for_the_planned_one(places, planned) -> None:
    here, one, _ = places
    plant(here, planned)
    plant(one, planned)
    change(here / TRAIN, request={**planned[TRAIN].request, "cpu_threads": 99})
    assert bring(here, one)["places"][1]["taken"] == [TRAIN]
    assert (here / TRAIN).read_bytes() == (one / TRAIN).read_bytes()


# The same result in several places ------------------------------------------------------------------------------------


def test_machines_times_and_reasons_may_differ(places, planned) -> None:
    here, one, _ = places
    own = {"rows": [{"peak_bytes": 1, "update_time_s": 1.0}], "reason": "process 1"}
    plant(here, planned, MEMORY, **own)
    plant(
        one,
        planned,
        MEMORY,
        processor="Processor 2",
        **{**own, "rows": [{"peak_bytes": 1, "update_time_s": 2.0}], "reason": "process 2"},
    )
    change(one / MEMORY, cost={"step_time_s": 9.0})
    before = contents(here)
    found = bring(here, one)
    assert found["places"][1]["same"] == [MEMORY]
    assert contents(here) == before


@pytest.mark.parametrize(("one", "other", "expected"), [
    ({"metrics": {"a": 1.0}, "status": "ok"}, {"metrics": {"a": 1.5}, "status": "diverged"}, ("status", "ok", "diverged")),
    ({"history": [{"epoch": 1}, {"epoch": 2}]}, {"history": [{"epoch": 1}, {"epoch": 3}]}, ("history.1.epoch", 2, 3)),
    ({"examples": {"a": [1.0, 0.0]}, "metrics": {"a": 1}}, {"examples": {"a": [0.0, 0.0]}, "metrics": {"a": 1}}, ("examples.a.0", 1.0, 0.0)),
    ({"a": {"update_time_s": 1, "energy_joules": 2}}, {"a": {"update_time_s": 2}}, None),
])  # fmt: skip
def test_a_gap_is_the_first_key_that_tells(one: dict, other: dict, expected: tuple | None) -> None:
    assert result_difference(one, other) == expected


@pytest.mark.parametrize("lists", [([1], [1, 2]), ([{"a": 1}], [{"a": 1, "b": 2}])])
def test_what_one_lacks_is_a_gap(lists: tuple[list, list]) -> None:
    assert result_difference({"history": lists[0]}, {"history": lists[1]}) is not None


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_results_that_disagree_are_refused_by_name_and_nothing_is_copied(
    where: str, places, planned
) -> None:
    here, one, other = places
    plant(one, planned)
    plant(
        here if where == "here" else other,
        planned,
        TRAIN,
        processor="Processor 2",
        metrics={"accuracy_fraction": 0.25},
    )
    before = contents(here)
    with pytest.raises(ValueError, match=r"metrics\.accuracy_fraction") as refused:
        bring(here, one, other)
    names = ("this clone", one) if where == "here" else (one, other)
    words = str(refused.value)
    for part in (
        TRAIN,
        *names,
        "0.5 in",
        "0.25 in",
        "cpu, Processor 1",
        "cpu, Processor 2",
        "--prefer",
        "nothing was copied",
    ):
        assert str(part) in words
    assert contents(here) == before


def test_a_preferred_place_wins_here_and_elsewhere(places, planned) -> None:
    here, one, other = places
    for root, accuracy in zip(places, (0.1, 0.2, 0.3), strict=True):
        plant(root, planned, TRAIN, MEMORY, TIMES, metrics={"accuracy_fraction": accuracy})
    kept = contents(here)
    assert bring(here, one, other, prefer=str(here))["places"][0]["taken"] == [TRAIN, MEMORY, TIMES]
    assert contents(here) == kept
    assert bring(here, one, other, prefer=str(other))["places"][2]["taken"] == [
        TRAIN,
        MEMORY,
        TIMES,
    ]
    assert contents(here) == contents(other)
    assert bring(here, one, other, prefer=str(other))["places"][2]["taken"] == []


def test_what_was_made_from_another_input_than_the_one_taken_does_not_come(places, planned) -> None:
    """One request, two pre-trainings: their runs are no pair, although each answers the plan."""
    here, one, other = places
    read = [path for path, job in planned.items() if job.rule in ("trial", "choose", "train")]
    plant(one, planned, DATASET, MODEL, *read[:-1])
    plant(other, planned, DATASET, MODEL, *read)
    change(other / MODEL, history=[{"epoch": 7}])
    with pytest.raises(ValueError, match=re.escape(MODEL)):
        bring(here, one, other)
    found = bring(here, one, other, prefer=str(one))
    assert found["places"][2]["unlike"] == [MODEL, *read]
    assert read[-1] in found["missing"]
    assert result.read(here / MODEL) == result.read(one / MODEL)
    assert not (here / read[-1]).exists()


def test_times_never_agree_so_the_first_place_counts(places, planned) -> None:
    here, one, other = places
    plant(one, planned, TIMES, metrics={"gradient_norm": 1.0})
    plant(other, planned, TIMES, metrics={"gradient_norm": 2.0})
    found = bring(here, one, other)
    assert found["timed"] == [TIMES]
    assert (here / TIMES).read_bytes() == (one / TIMES).read_bytes()
    assert "timings that lie in several places: 1;" in text(found)
    assert bring(here, other)["places"][0]["taken"] == [TIMES]


# When Snakemake looks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [-DAY_NS, 0, DAY_NS])
def test_what_was_copied_is_never_older_than_what_lies_here_and_it_reads(
    shift: int, places, planned
) -> None:
    here, one, _ = places
    plant(one, planned)
    for path in planned:
        os.utime(one / path, ns=(10**18, 10**18))
    plant(here, planned, DATASET, MODEL)
    for path in (DATASET, MODEL):
        when = (here / path).stat().st_mtime_ns + shift
        os.utime(here / path, ns=(when, when))
    bring(here, one)
    assert consistent(here, planned)


def test_inputs_that_come_late_are_no_newer_than_what_was_made_from_them(places, planned) -> None:
    here, one, _ = places
    kept = [path for path, job in planned.items() if job.rule in ("trial", "train")]
    plant(one, planned)
    plant(here, planned, *kept)
    times = {path: 10**18 + number for number, path in enumerate(kept)}
    for path, when in times.items():
        os.utime(here / path, ns=(when, when))
    bring(here, one)
    assert {path: (here / path).stat().st_mtime_ns for path in kept} == times
    assert consistent(here, planned)


def test_inputs_made_after_the_copies_are_settled_by_collecting_again(places, planned) -> None:
    here, one, _ = places
    read = [path for path, job in planned.items() if job.rule in ("trial", "train")]
    plant(one, planned, *read[:-1])
    found = bring(here, one)
    assert [note.split()[0] for note in found["notes"]] == [DATASET, MODEL]
    assert f"snakemake {MODEL}, then collect again" in text(found)
    plant(here, planned, *(path for path in planned if path not in read))
    assert not consistent(here, planned)
    assert bring(here, one)["notes"] == []
    assert consistent(here, planned)
