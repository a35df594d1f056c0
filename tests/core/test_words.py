"""Numbers with their nouns."""

from rankwise.core.words import counted


def test_one_and_several() -> None:
    assert [counted(n, "run") for n in (0, 1, 2, 1000)] == [
        "0 runs",
        "1 run",
        "2 runs",
        "1,000 runs",
    ]
