"""Which rows are trained on and held out: exact counts, classes in proportion, the same on every machine."""

import random
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.core import result
from rankwise.data import datasets, splits

CLASSES = ["a", "b", "c"]


def labelled(*sizes: int) -> list[dict]:
    """Rows sorted by class, with distinct texts."""
    return [
        {"text": f"text {label} {number}", "label": label}
        for label, size in enumerate(sizes)
        for number in range(size)
    ]


def options(**changes: object) -> dict:
    return {"task": "classification", "train_rows": None, "selection_rows": 10, **changes}


def counts(rows: list[dict]) -> list[int]:
    by_label = Counter(row["label"] for row in rows)
    return [by_label[label] for label in range(len(CLASSES))]


# Drawing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sizes", "count", "keep_one", "expected"), [
    # Exact shares 5, 3, 2.
    ([50, 30, 20], 10, True, [5, 3, 2]),
    # Exact shares 3.5, 2.45, 1.05: whole parts 3, 2, 1, and the largest remainder is .5.
    ([50, 35, 15], 7, True, [4, 2, 1]),
    # Equal remainders of 1/3: the first class wins.
    ([10, 10, 10], 10, True, [4, 3, 3]),
    # Exact shares 9.6, .2, .2: every class gets one row, which the first class gives.
    ([480, 10, 10], 10, True, [8, 1, 1]),
    # A class with one row keeps it to train on.
    ([30, 1], 5, True, [5, 0]),
    ([30, 1], 5, False, [4, 1]),
    # Fewer rows than classes: the largest.
    ([5, 4, 3], 2, True, [1, 1, 0]),
    ([5, 4, 3], 12, False, [5, 4, 3]),
])  # fmt: skip
def test_rows_are_allotted_by_the_largest_remainder(sizes, count, keep_one, expected) -> None:
    assert splits.allot(sizes, count, keep_one) == expected


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.data())
def test_allotted_rows_add_up_and_are_near_their_shares(sizes: list[int], data) -> None:
    count = data.draw(st.integers(1, sum(sizes)))
    allotted = splits.allot(sizes, count, keep_one=False)
    assert sum(allotted) == count
    assert all(0 <= rows <= size for rows, size in zip(allotted, sizes, strict=True))
    if count >= len(sizes):
        assert all(allotted)
    shares = [Fraction(count * size, sum(sizes)) for size in sizes]
    if all(share >= 1 for share in shares):  # no class needs a row from another
        pairs = zip(allotted, shares, strict=True)
        assert all(abs(rows - share) < 1 for rows, share in pairs)


def test_the_selection_slice_is_stratified_and_train_keeps_its_order() -> None:
    rows = labelled(500, 300, 200)
    train, selection = splits.hold_out(rows, options(selection_rows=100))
    assert counts(selection) == [50, 30, 20]
    assert counts(train) == [450, 270, 180]
    assert train == [row for row in rows if row not in selection]
    assert selection == [row for row in rows if row in selection]
    assert selection[:50] != rows[:50]


def test_a_sample_of_a_sorted_file_has_every_class() -> None:
    """Cutting `train_rows: 200` from a file that is sorted by class trained on one class."""
    rows = labelled(500, 300, 200)
    sampled = splits.sample(rows, options(train_rows=200))
    assert counts(sampled) == [100, 60, 40]
    smaller = splits.sample(rows, options(train_rows=100))
    assert all(row in sampled for row in smaller)


def test_a_larger_sample_lacks_one_row_a_class_of_a_smaller_one_at_most() -> None:
    """Exact shares of 57 and 58: 6.33 and 6.44 rows of the last class; its remainder wins once."""
    sizes = (49, 57, 27, 3, 17)
    rows = labelled(*sizes)
    found = {count: splits.sample(rows, options(train_rows=count)) for count in range(5, 153)}
    shrinks = 0
    for count in range(5, 152):
        missing = [row["label"] for row in found[count] if row not in found[count + 1]]
        assert len(missing) == len(set(missing))
        shrinks += bool(missing)
    assert shrinks


def test_a_quick_look_reports_on_rows_of_every_class() -> None:
    rows = labelled(500, 300, 200)
    assert counts(splits.sample(rows, options(report_rows=20), "report_rows")) == [10, 6, 4]
    assert splits.sample(rows, options(), "report_rows") == rows
    with pytest.raises(
        ValueError, match=r"report_rows: got 1,001, allowed: at most the 1,000 of test"
    ):
        splits.sample(rows, options(report_rows=1001, report_split="test"), "report_rows")


def test_a_draw_does_not_depend_on_the_order_of_the_rows() -> None:
    rows = labelled(100, 60, 40)
    shuffled = random.Random(1).sample(rows, len(rows))
    for settings_of_draw in (options(), options(train_rows=50)):
        first = splits.hold_out(splits.sample(rows, settings_of_draw), settings_of_draw)
        second = splits.hold_out(splits.sample(shuffled, settings_of_draw), settings_of_draw)
        for one, other in zip(first, second, strict=True):
            assert sorted(row["text"] for row in one) == sorted(row["text"] for row in other)


def test_a_draw_is_the_same_on_every_machine() -> None:
    """From SHA-256 of `0 selection_rows TEXT`: computed with coreutils' sha256sum, and sorted."""
    rows = [{"text": text} for text in ("one", "two", "three", "four", "five")]
    train, selection = splits.hold_out(
        rows, options(task="masked_language_modelling", selection_rows=2)
    )
    assert [row["text"] for row in selection] == ["four", "five"]
    assert len(train) == 3


def test_near_copies_of_a_text_stay_together() -> None:
    texts = [f"{word} {end}" for word in map(str, range(50)) for end in ("film", "Film.", "FILM !")]
    masked = options(task="masked_language_modelling", selection_rows=30)
    train, selection = splits.hold_out([{"text": text} for text in texts], masked)
    held_out = {row["text"].split()[0] for row in selection}
    assert len(held_out) == 10
    assert not held_out & {row["text"].split()[0] for row in train}


@pytest.mark.parametrize("count", [31, 32])
def test_a_number_of_rows_divides_the_copies_of_one_text_at_most(count: int) -> None:
    texts = [f"{word} {end}" for word in map(str, range(50)) for end in ("film", "Film.", "FILM !")]
    masked = options(task="masked_language_modelling", selection_rows=count)
    train, selection = splits.hold_out([{"text": text} for text in texts], masked)
    held_out, kept = ({row["text"].split()[0] for row in rows} for rows in (selection, train))
    assert len(selection) == count
    assert len(held_out & kept) == 1


def test_running_text_is_cut_at_its_end_and_taken_from_its_beginning() -> None:
    lines = [{"text": str(number)} for number in range(10)]
    running = options(task="language_modelling", train_rows=8, selection_rows=3)
    assert splits.sample(lines, running) == lines[:8]
    assert splits.hold_out(lines[:8], running) == (lines[:5], lines[5:8])


def test_texts_without_labels_are_drawn_from_all() -> None:
    texts = [{"text": str(number)} for number in range(100)]
    masked = options(task="masked_language_modelling", train_rows=40)
    sampled = splits.sample(texts, masked)
    assert len(sampled) == 40
    assert sampled != texts[:40]
    train, selection = splits.hold_out(sampled, masked)
    assert (len(train), len(selection)) == (30, 10)


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"selection_rows": 100}, "selection_rows: got 100, allowed: less than the 100 rows of train"),
    ({"train_rows": 101}, "train_rows: got 101, allowed: at most the 100 of train"),
])  # fmt: skip
def test_more_rows_than_there_are_are_refused(changes: dict, sentence: str) -> None:
    rows = labelled(50, 50)
    with pytest.raises(ValueError, match=sentence):
        splits.hold_out(splits.sample(rows, options(**changes)), options(**changes))


# A share of train's file ---------------------------------------------------------------------------


def shared(share: float, **changes: object) -> dict:
    splits_of_entry = {"train": {"path": "a"}, "test": {"path": "a", "share": share}}
    return options(splits=splits_of_entry, report_split="test", **changes)


def test_a_share_is_drawn_in_each_class_and_train_has_the_others() -> None:
    rows = labelled(50, 30, 20)
    train, test = splits.take_share(rows, shared(0.2))
    assert (counts(train), counts(test)) == ([40, 24, 16], [10, 6, 4])
    assert sorted(row["text"] for row in train + test) == sorted(row["text"] for row in rows)


def test_the_rows_of_a_share_do_not_depend_on_their_order() -> None:
    rows = labelled(50, 30, 20)
    shuffled = random.Random(2).sample(rows, len(rows))
    _, first = splits.take_share(rows, shared(0.1))
    _, second = splits.take_share(shuffled, shared(0.1))
    assert sorted(row["text"] for row in first) == sorted(row["text"] for row in second)


def test_a_share_of_running_text_is_its_end() -> None:
    lines = [{"text": str(number)} for number in range(10)]
    running = shared(0.3, task="language_modelling")
    assert splits.take_share(lines, running) == (lines[:7], lines[7:])


def test_a_share_has_a_row_at_least() -> None:
    train, test = splits.take_share(labelled(10, 10), shared(0.01))
    assert (len(train), len(test)) == (19, 1)


def test_a_share_that_leaves_no_row_is_refused() -> None:
    sentence = "splits.test.share: got 0.01, which is 1 of 1 rows, allowed: a share that leaves"
    with pytest.raises(ValueError, match=sentence):
        splits.take_share(labelled(1, 0), shared(0.01))


def test_a_share_is_prepared_and_counted(tmp_path: Path) -> None:
    """20 rows without a text are dropped before 30 of 100 are drawn, and 7 are held out of 70."""
    lines = [f"text {number}\t{'ab'[number % 2]}\n" for number in range(100)]
    lines += [f"\t{'ab'[number % 2]}\n" for number in range(20)]
    (tmp_path / "all.tsv").write_text("text\tlabel\n" + "".join(lines))
    dataset = {
        **shared(0.3, selection_rows=7),
        "files": {"folder": str(tmp_path), "format": "tsv"},
        "text": "text",
        "label": "label",
        "classes": ["a", "b"],
        "first_label": 0,
        "missing_text": "drop",
        "max_length_tokens": 8,
    }
    for source in dataset["splits"].values():
        source["path"] = "all.tsv"
    assert datasets.problems(dataset, "mine") == []
    prepared = datasets.prepare_dataset({"dataset": dataset, "name": "mine"}, tmp_path)
    assert {
        row["split"]: (row["rows"], row["dropped_rows"]) for row in prepared["data"]["splits"]
    } == {
        "train": (63, 20),
        "selection": (7, 20),
        "test": (30, 20),
    }
    assert [row["exact_rows"] for row in prepared["data"]["overlap"]] == [0, 0]


# Splits that nothing can be learnt from -----------------------------------------------------------


@pytest.fixture
def prepare(tmp_path: Path):
    """A function that prepares a dataset from the labels of both splits; returns its record."""

    def run(train: list[str], test: list[str], **changes: object) -> dict:
        for split, labels in {"train": train, "test": test}.items():
            lines = [f"{split} {number}\t{label}\n" for number, label in enumerate(labels)]
            (tmp_path / f"{split}.tsv").write_text("text\tlabel\n" + "".join(lines))
        dataset = {
            **options(selection_rows=4),
            "files": {"folder": str(tmp_path), "format": "tsv"},
            "splits": {split: {"path": f"{split}.tsv"} for split in ("train", "test")},
            "report_split": "test",
            "text": "text",
            "label": "label",
            "first_label": 0,
            "classes": CLASSES,
            **changes,
        }
        found = datasets.problems(dataset, "config/datasets.yaml: mine")
        try:
            record = datasets.prepare_dataset({"dataset": dataset, "name": "mine"}, tmp_path)
        except ValueError as error:
            assert found[0] == str(error)
            raise
        assert found == []
        return record

    return run


@pytest.mark.parametrize(("train", "test", "changes", "sentence"), [
    ("aaaaaaaaab", "ab", {}, "split selection: got rows of one class only (4 of 'a', 0 of 'b', 0 of 'c'), allowed: at least 2 classes; raise selection_rows"),
    ("aaaaaaaaaa", "ab", {}, "split train: got rows of one class only (6 of 'a', 0 of 'b', 0 of 'c'), allowed: at least 2 classes; give it rows"),
    ("aaaaabbbbb", "bb", {}, "split test: got rows of one class only (0 of 'a', 2 of 'b', 0 of 'c'), allowed: at least 2 classes; report on"),
    ("aaaaabbbbb", "abccc", {}, "split train: got no row of class 'c', which test has 3 of; allowed: rows of every class of test"),
    ("aaaaabbbbb", "ab", {"selection_rows": 1}, "split selection: got rows of one class only (1 of 'a'"),
    ("ab", "ab", {}, "selection_rows: got 4, allowed: less than the 2 rows of train"),
])  # fmt: skip
def test_a_split_that_nothing_can_be_learnt_from_is_refused(
    train, test, changes, sentence, prepare
) -> None:
    with pytest.raises(ValueError) as caught:
        prepare(list(train), list(test), **changes)
    assert str(caught.value).startswith(f"config/datasets.yaml: mine: {sentence}")


def test_of_many_classes_those_with_rows_are_named(prepare) -> None:
    many = [f"class {number}" for number in range(77)]
    with pytest.raises(ValueError, match=r"train: got .* \(6 of 'class 3', 0 of the other 76\)"):
        prepare(["class 3"] * 10, ["class 3"], classes=many)


def test_dropped_rows_are_counted_and_may_not_be_all(tmp_path: Path) -> None:
    dataset = {
        **options(task="masked_language_modelling", selection_rows=2),
        "files": {"folder": str(tmp_path), "format": "csv"},
        "splits": {split: {"path": f"{split}.csv"} for split in ("train", "test")},
        "report_split": "test",
        "text": "text",
        "missing_text": "drop",
    }
    request = {"dataset": dataset, "name": "mine"}
    (tmp_path / "train.csv").write_text("text,number\na,1\n,2\nb,3\n ,4\nc,5\n")
    (tmp_path / "test.csv").write_text("text,number\n,1\nd,2\n")
    assert datasets.prepare_dataset(request, tmp_path)["data"]["splits"] == [
        {"split": "train", "rows": 1, "dropped_rows": 2},
        {"split": "selection", "rows": 2, "dropped_rows": 2},
        {"split": "test", "rows": 1, "dropped_rows": 1},
    ]
    (tmp_path / "test.csv").write_text("text,number\n,1\n")
    sentence = "config/datasets.yaml: mine: split test: got no rows, allowed: at least 1"
    assert datasets.problems(dataset, "config/datasets.yaml: mine") == [sentence]
    with pytest.raises(ValueError, match=sentence):
        datasets.prepare_dataset(request, tmp_path)


def test_a_class_without_rows_is_reported_as_such(prepare) -> None:
    record = prepare(list("aaaaabbbbb"), list("aab"))
    by_class = {(row["split"], row["class"]): row["rows"] for row in record["data"]["classes"]}
    assert by_class == {
        ("train", "a"): 3, ("train", "b"): 3, ("train", "c"): 0,
        ("selection", "a"): 2, ("selection", "b"): 2, ("selection", "c"): 0,
        ("test", "a"): 2, ("test", "b"): 1, ("test", "c"): 0,
    }  # fmt: skip
    assert record["data"]["splits"] == [
        {"split": "train", "rows": 6, "dropped_rows": 0},
        {"split": "selection", "rows": 4, "dropped_rows": 0},
        {"split": "test", "rows": 3, "dropped_rows": 0},
    ]
    assert record["data"]["labels"] == [{"label": "a", "class": "a"}, {"label": "b", "class": "b"}]


def test_what_is_counted_can_be_written_as_a_result(prepare, tmp_path: Path) -> None:
    record = prepare(list("aaaaabbbbb"), list("aab"))
    result.write(tmp_path / "dataset.json", {}, record, {})
    assert result.read(tmp_path / "dataset.json")["data"] == record["data"]
    record["data"]["splits"][0]["number"] = 3
    with pytest.raises(ValueError, match="column 'number' has no unit"):
        result.write(tmp_path / "dataset.json", {}, record, {})
