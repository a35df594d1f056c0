"""What is wrong with a YAML file is said with its line, its column and what is there."""

from pathlib import Path

import pytest

from rankwise.core.config import ConfigError, read_yaml

# Text of a file -> parts of the message about it. Lines and columns count from 1, as editors do.
BROKEN = {
    "train:\n  - {seeds: [0, 1}\n": ["line 2, column 18: got '}'", "line 2, column 13"],
    "question: What: why?\n": ["line 1, column 15: got ': why?'", "needs quotes"],
    "a: 1\n\tb: 2\n": ["line 2, column ", "indent with spaces"],
    "a: 'open\nb: 1\n": ["line 3, column 1: got 'the end of the file'", "line 1, column 4"],
    "a: 1\nb: *x\n": ["line 2, column 4: got '*x'", "undefined alias"],
    "a: 1\nnote: 2026-02-30\n": ["line 2, column 7: got '2026-02-30'", "a text needs quotes"],
    "a: 1\n---\nb: 2\n": ["line 2, column 1: got '---'", "another document"],
    "ä: ok \x07\n": ["line 1, column 7: got '\\x07', allowed: printable characters"],
    "a: 1\nb:\n  - c: 2\n    c: 3\n": ["line 4, column 5: got 'c: 3'", "'c' stands twice"],
    f"a: @{'x' * 60}\n": [f"line 1, column 4: got '@{'x' * 39}...'", "needs quotes"],
}


@pytest.mark.parametrize("text", BROKEN)
def test_the_place_and_the_text_at_it_are_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_yaml(file, "config/mine.yaml")
    message = str(caught.value)
    assert message.startswith("config/mine.yaml: line ")
    assert "\n" not in message
    for part in BROKEN[text]:
        assert part in message, message


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes("name: mine\nquestion: für".encode("latin-1"))
    with pytest.raises(
        ConfigError, match="line 2, column 12: got 'byte 0xfc', allowed: text in UTF"
    ):
        read_yaml(file, "config/mine.yaml")


def test_a_missing_file_is_told_with_the_nearest(tmp_path: Path) -> None:
    for name in ("demo.yaml", "laptop.yaml"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=r"a YAML file \(nearest: config/demo\.yaml\)$"):
        read_yaml(tmp_path / "demoo.yaml", "config/demoo.yaml")
    with pytest.raises(ConfigError, match=r"config/ has demo\.yaml, laptop\.yaml$"):
        read_yaml(tmp_path / "qqqqqq.yaml", "config/qqqqqq.yaml")
    with pytest.raises(ConfigError, match="got 'a folder', allowed: a YAML file"):
        read_yaml(tmp_path, "here")


def test_a_merge_key_may_stand_several_times(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("x: &x {p: 1}\ny: &y {q: 2}\nz: {<<: *x, <<: *y}\n")
    assert read_yaml(file, "a.yaml")["z"] == {"p": 1, "q": 2}
