"""JSON Lines and JSON arrays are read as they were written, or refused with file and row."""

import json
from pathlib import Path

import pytest

from helpers.dataset_files import cells, problems, read, texts_of, write


def test_lines_end_at_a_line_feed_only(tmp_path: Path) -> None:
    """Seen: U+2028 inside of a string ended the line."""
    text = "a\u2028b\u2029c\x85d"
    lines = [json.dumps({"text": text, "label": n}, ensure_ascii=False) for n in range(2)]
    path = write(tmp_path, "d.jsonl", "\ufeff" + "\r\n".join(lines) + "\n\n")
    assert read(path, "jsonl") == [
        ("row 1", {"text": text, "label": 0}),
        ("row 2", {"text": text, "label": 1}),
    ]


def test_values_stay_as_they_are(tmp_path: Path) -> None:
    values = ["2020-01-01T00:00:00", "NA", "007", "a\r\nb\x0b", "a\x00"]
    lines = [json.dumps({"text": value}) + "\n" for value in values]
    path = write(tmp_path, "d.jsonl", "".join(lines))
    assert texts_of(path, "jsonl", label=None) == values


@pytest.mark.parametrize("file_format", ["json", "jsonl"])
def test_an_array_of_objects_has_a_row_an_object(file_format: str, tmp_path: Path) -> None:
    content = (
        '[\n  {"text": "a",\n   "label": 1},\n\n  {"text": "b", "label": 0}, {"text": "c"}\n]\n'
    )
    assert read(write(tmp_path, "d.json", content), file_format) == [
        ("row 2", {"text": "a", "label": 1}),
        ("row 5", {"text": "b", "label": 0}),
        ("row 5", {"text": "c"}),
    ]


def test_every_bad_line_is_listed(tmp_path: Path) -> None:
    lines = [
        '{"text": null}',
        '{"text": NaN}',
        '{"text": "x", "text": "y"}',
        '{"text": [1, 2]}',
        '{"text": {"a": 1}}',
        '{"text": 5}',
        '{"text": true}',
        '{"label": 1}',
        "",
        '{"text": "\\ud800"}',
        '{"text": "right"}',
        "{'text': 'x'}",
        '["x"]',
        '{"text": "x"} {"text": "y"}',
        '{"text": " \\t\\u2003"}',
        "{}",
    ]
    path = write(tmp_path, "d.jsonl", "\n".join(lines) + "\n")
    starts = [
        "row 1: column 'text' is null, allowed: a text; correct the row, or leave such rows out with `missing_text: drop`",
        "row 2: the number NaN is no JSON",
        "row 3: the key 'text' stands twice in an object",
        "row 4: column 'text' is [1, 2] (list), allowed: a text",
        "row 5: column 'text' is {'a': 1} (dict), allowed: a text",
        "row 6: column 'text' is 5 (int), allowed: a text",
        "row 7: column 'text' is True (bool), allowed: a text",
        "row 8: no column 'text', allowed: label",
        "row 9: a blank line, allowed: a JSON object",
        "row 10: column 'text' has U+D800, half of a surrogate pair",
        "row 12: not JSON: Expecting property name enclosed in double quotes, at column 2",
        "row 13: got ['x'], allowed: one JSON object a line, or one array of objects",
        "row 14: not JSON: Extra data, at column 15",
        "row 15: column 'text' is ' \\t\\u2003', allowed: a text",
        "row 16: no column 'text', allowed: nothing: the row is empty",
    ]
    found = problems(path, "jsonl", label=None)
    for sentence, start in zip(found, starts, strict=True):
        assert sentence.startswith(start)


@pytest.mark.parametrize(("content", "message"), [
    ("[]", "has no rows"),
    (" ", "row 1: not JSON"),
    ("\n", "has no rows"),
    ("[1]", "row 1: got 1, allowed: one JSON object"),
    ('[{"text": "a"},]', "row 1: not JSON"),
    ('[{"text": "a"}', "row 1: the array goes on with its end, allowed: ',' or ']'"),
    ('[\n{"text": "a"}\n{"text": "b"}]', "row 3: the array goes on with '{\"text\": \"b\"}]', allowed: ',' or ']'"),
    ('[{"text": "a"}]\n[{"text": "b"}]', "row 2: '[{\"text\": \"b\"}]' follows the array"),
    ('[{"text": "a", "text": "b"}]', "row 1: the key 'text' stands twice"),
    ('[{"text": "a"},\n{"text": Infinity}]', "row 2: the number Infinity is no JSON"),
    ('{\n  "text": "a"\n}\n', "row 1: one object over several lines, allowed: one JSON object a line"),
    ("[" * 100_000, "row 1: lists or objects are nested too deeply"),
])  # fmt: skip
def test_a_file_that_does_not_fit_is_one_sentence(
    content: str, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, "d.json", content)
    with pytest.raises(ValueError) as raised:
        texts_of(path, "json", label=None)
    assert str(raised.value).startswith(f"{path}: {message}")


def test_other_objects_of_an_array_are_looked_at_after_a_bad_one(tmp_path: Path) -> None:
    path = write(tmp_path, "d.json", '[{"text": "a"},\n 5,\n {"text": null},\n {"text": "b"}]')
    assert [line[:6] for line in problems(path, "json")] == ["row 2:", "row 3:"]


def test_columns_may_come_in_another_order_in_each_object(tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl", '{"text": "a", "label": 1}\n{"label": 0, "text": "b"}\n')
    assert cells(path, "jsonl") == [("a", 1), (0, "b")]
    assert texts_of(path, "jsonl") == ["a", "b"]
