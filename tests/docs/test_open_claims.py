"""The table of open published numbers is of today's registry, and every open one says what it lacks."""

import sys
from collections import Counter

import pytest

from helpers.repository import ROOT
from rankwise.core import csv_cells

sys.path.insert(0, str(ROOT / "benchmarks"))
import open_claims
import publish


@pytest.fixture(scope="module")
def judged():
    return open_claims.verdicts()


def rows(text: str) -> list[list[str]]:
    return [line.strip("| \n").split(" | ") for line in text.splitlines()[2:]]


def test_the_file_is_what_the_command_writes(judged) -> None:
    """`python benchmarks/open_claims.py && python benchmarks/publish.py` writes it anew."""
    assert open_claims.FILE.read_text() == open_claims.page(judged)


def test_the_verdicts_of_all_systems_are_of_todays_tables() -> None:
    """`python benchmarks/publish.py` writes them anew."""
    assert publish.VERDICTS_FILE.read_text() == publish.verdicts(
        publish.VERDICTS_FILE.with_name("claims.csv")
    )


def test_published_peaks_have_the_verdicts_of_their_own_study() -> None:
    table = csv_cells.read(publish.DECIDED_ELSEWHERE)[1]
    counted = {row[0]: row[1:] for row in rows(publish.VERDICTS_FILE.read_text())}
    for system in ("transformers", "peft", "litgpt"):
        decided = Counter(row["verdict"] for row in table if row["system"] == system)
        assert [int(count) for count in counted[system]] == [
            decided[verdict] for verdict in publish.VERDICTS
        ]


def test_every_claim_is_counted_once_and_every_open_one_lacks_something(judged) -> None:
    counted: Counter = Counter()
    for system, _, claims, verdict, lacks, *_ in rows(open_claims.page(judged)):
        counted[system, verdict] += int(claims)
        assert lacks.strip()
    assert counted == Counter(zip(judged["system"], judged["verdict"], strict=True))
    assert {system for system, _ in counted} == {"B", "D", "E", "HiRA"}


def test_a_claim_that_lacks_a_method_says_which(judged) -> None:
    """HiRA's table has MoRA, which no entry of ours is."""
    (row,) = [row for row in rows(open_claims.page(judged)) if "MoRA" in row[4]]
    assert row[:4] == ["HiRA", "Accuracy", "1", "not yet run"]
