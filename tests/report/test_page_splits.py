"""The page's table of splits says what the runs recorded."""

from rankwise.report.html.splits import splits

DATA = {
    "splits": [
        {"split": "train", "rows": 6000, "dropped_rows": 2},
        {"split": "test", "rows": 400, "dropped_rows": 0},
    ],
    "overlap": [
        {"split": "test", "compared": "texts", "compared_rows": 400, "exact_rows": 3,
         "exact_fraction": 0.0075, "normalised_rows": 50, "normalised_fraction": 0.125},
    ],
    "labels": [{"label": "1", "class": "no"}, {"label": "2", "class": "yes"}],
    "classes": [
        {"split": "train", "class": "no", "rows": 5000}, {"split": "train", "class": "yes", "rows": 1000},
        {"split": "test", "class": "no", "rows": 400}, {"split": "test", "class": "yes", "rows": 0},
    ],
}  # fmt: skip


def record(dataset: str, **content: object) -> dict:
    return {"request": {"cell": {"dataset": dataset}}, **content}


def test_a_row_for_each_split_of_each_dataset() -> None:
    profiled, named = record("profiled"), {**DATA, "labels": [{"label": "no", "class": "no"}]}
    rows = splits(
        [
            profiled,
            record("mine", data=DATA),
            record("mine", data=DATA),
            record("named", data=named),
        ]
    )
    assert [list(row.values()) for row in rows[:2]] == [
        ["mine", "train", "6,000; 2 without text dropped", "5,000 no (1), 1,000 yes (2)", "", ""],
        ["mine", "test", "400", "400 no (1), 0 yes (2)", "3 of 400 (0.75\u00a0%)", "50 of 400 (12.5\u00a0%)"],
    ]  # fmt: skip
    assert [row["dataset"] for row in rows] == ["mine", "mine", "named", "named"]
    assert rows[2]["classes"] == "5,000 no, 1,000 yes"


def test_running_text_has_no_classes() -> None:
    data = {**DATA, "labels": [], "classes": []}
    assert {row["classes"] for row in splits([record("text", data=data)])} == {""}


def test_a_study_that_trains_nothing_has_no_table() -> None:
    assert splits([record("mine")]) == []
