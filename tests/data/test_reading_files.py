"""Encodings, compressed files, archives, Parquet and running text."""

import datetime
import gzip
import io
import os
import re
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas
import pyarrow
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from helpers.dataset_files import cells, entry, problems, read, texts_of, write
from rankwise.data import reading

TABLE = "text,label\nné,1\nb,0\n"
RECORDS = [("row 2", {"text": "né", "label": "1"}), ("row 3", {"text": "b", "label": "0"})]


# Encodings ----------------------------------------------------------------------------------------


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    assert read(write(tmp_path, "d.csv", "\ufeff" + TABLE), "csv") == RECORDS
    quoted = '\ufeff"text","label"\nné,1\nb,0\n'
    assert read(write(tmp_path, "e.csv", quoted), "csv") == RECORDS


@pytest.mark.parametrize("name", ["d.csv", "d.csv.gz"])
def test_latin_1_is_told_with_the_byte_and_the_command(name: str, tmp_path: Path) -> None:
    content = TABLE.encode("latin-1")
    assert content[12] == 0xE9
    path = write(tmp_path, name, gzip.compress(content) if name.endswith("gz") else content)
    source = "gzip -dc d.csv.gz | iconv -f LATIN1 -t UTF-8"
    command = source if name.endswith("gz") else "iconv -f LATIN1 -t UTF-8 d.csv"
    assert problems(path, "csv") == [
        "row 2: byte 0xE9 at offset 12 is not UTF-8, allowed: UTF-8; if the file is Latin-1, "
        f"convert it: {command} > utf8_d.csv"
    ]


def test_offsets_count_the_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path, "d.txt", b"\xef\xbb\xbfab\xff\n")
    assert problems(path, "text", label=None)[0].startswith("row 1: byte 0xFF at offset 5 is")


@pytest.mark.parametrize(("encoding", "start"), [
    ("utf-16", "begins with the bytes 0xFF 0xFE"), ("utf-16-le", "has byte 0x00 at offset 1 (row 1)"), ("utf-16-be", "has byte 0x00 at offset 0 (row 1)"),
])  # fmt: skip
@pytest.mark.parametrize("file_format", ["csv", "tsv", "jsonl", "text"])
def test_utf_16_is_told(encoding: str, start: str, file_format: str, tmp_path: Path) -> None:
    path = write(tmp_path, "d.txt", TABLE.encode(encoding))
    (sentence,) = problems(path, file_format)
    assert sentence.startswith(start)
    assert sentence.endswith("convert it: iconv -f UTF-16 -t UTF-8 d.txt > utf8_d.txt")


def test_the_command_of_the_sentence_mends_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "d.csv", TABLE.encode("utf-16"))
    command = problems(path, "csv")[0].split("convert it: ")[1]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert read(tmp_path / "utf8_d.csv", "csv") == RECORDS


# Compressed files ---------------------------------------------------------------------------------


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    packed = gzip.compress(TABLE.encode())
    assert read(write(tmp_path, "d.csv.gz", packed), "csv") == RECORDS
    assert read(write(tmp_path, "d.csv", packed), "csv") == RECORDS
    plain = write(tmp_path, "e.csv.gz", TABLE)
    assert problems(plain, "csv") == ["is not gzip, allowed: a gzip file, or a name without .gz"]


def test_gzip_that_is_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress("".join(f"text {n}\n" for n in range(50)).encode())
    for length in range(2, len(packed)):
        path = write(tmp_path, "d.txt.gz", packed[:length])
        with pytest.raises(ValueError, match=r"d\.txt\.gz: is damaged or cut short"):
            read(path, "text", label=None)


def test_gzip_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(TABLE.encode()))
    packed[-8] ^= 1
    path = write(tmp_path, "d.csv.gz", bytes(packed))
    with pytest.raises(ValueError, match=r"is damaged or cut short .*CRC"):
        read(path, "csv")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for file_format in ("csv", "jsonl", "text", "parquet"):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none", file_format)


# Running text -------------------------------------------------------------------------------------


def test_lines_of_text_keep_their_ends_and_end_at_a_line_feed_only(tmp_path: Path) -> None:
    lines = ["one\r\n", "\n", "two\x0b\x0c\x1c\x85\u2028\u2029three\n", " \n", "lone\rcr\n", "end"]
    path = write(tmp_path, "d.txt", "\ufeff" + "".join(lines))
    running = {"task": "language_modelling", "label": None}
    assert texts_of(path, "text", **running) == lines
    assert [row.where for row in read(path, "text", **running)][:2] == ["row 1", "row 2"]


def test_blank_lines_are_no_texts_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path, "d.txt", "one\n\ntwo\n")
    masked = {"task": "masked_language_modelling", "label": None}
    assert problems(path, "text", **masked) == [
        "row 2: column 'text' is '\\n', allowed: a text; correct the row, or leave such rows out "
        "with `missing_text: drop`"
    ]
    assert texts_of(path, "text", missing_text="drop", **masked) == ["one\n", None, "two\n"]


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_an_empty_text(content: bytes, tmp_path: Path) -> None:
    assert problems(write(tmp_path, "d.txt", content), "text", label=None) == [
        "has no rows, allowed: at least one"
    ]


# Archives -----------------------------------------------------------------------------------------

MEMBER = r"x/(yes|no)/.*\.txt"


def archive(path: Path, files: dict[str, bytes], mode: str = "w", **kinds: bytes) -> Path:
    """A tar file; `kinds` are types of the members of these names, which then link to `target`."""
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.type = kinds.get(name.rsplit("/", 1)[-1].removesuffix(".txt"), tarfile.REGTYPE)
            info.linkname = "" if info.isreg() else "target"
            info.size = len(content) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(content))
    return path


def member(path: Path, pattern: str = MEMBER, **changes: object) -> dict:
    return {"splits": {"train": {"path": path.name, "member": pattern}}, **changes}


def test_members_are_sorted_and_named(tmp_path: Path) -> None:
    files = {"x/yes/b.txt": b"\xef\xbb\xbfone\r\n", "x/no/a.txt": "né".encode(), "x/other": b"\xff"}
    for mode in ("w", "w:gz", "w:xz"):
        path = archive(tmp_path / "d.tar", files, mode)
        assert read(path, "tar", **member(path)) == [
            ("member x/no/a.txt", {"text": "né", "label": "no"}),
            ("member x/yes/b.txt", {"text": "one\r\n", "label": "yes"}),
        ]


def test_members_that_do_not_fit_are_all_listed(tmp_path: Path) -> None:
    files = {
        "x/no/blank.txt": b" \n",
        "x/no/latin.txt": b"\xe9",
        "x/no/link.txt": b"",
        "x/no/hard.txt": b"",
        "x/no/right.txt": b"right",
        "x/no/../../out.txt": b"out",
    }
    path = archive(tmp_path / "d.tar", files, link=tarfile.SYMTYPE, hard=tarfile.LNKTYPE)
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("x/no/right.txt")
        tar.addfile(info)
        folder = tarfile.TarInfo("x/no/folder.txt")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    starts = [
        "member x/no/../../out.txt: leaves the archive's folder",
        "member x/no/blank.txt: column 'text' is ' \\n'",
        "member x/no/hard.txt: a link or a device, allowed: a regular file",
        "member x/no/latin.txt: byte 0xE9 at offset 0 is not UTF-8",
        "member x/no/link.txt: a link or a device, allowed: a regular file",
        "member x/no/right.txt: stands twice in the archive",
    ]
    found = problems(path, "tar", **member(path))
    for sentence, start in zip(found, starts, strict=True):
        assert sentence.startswith(start)


def test_a_pattern_that_matches_no_file_is_told(tmp_path: Path) -> None:
    path = archive(tmp_path / "d.tar", {"x/yes/b.txt": b"one"})
    assert problems(path, "tar", **member(path, "y/(.*)")) == [
        "no file's name matches 'y/(.*)' (splits.train.member); list the names: tar tf d.tar"
    ]


def test_an_archive_without_labels_needs_no_group(tmp_path: Path) -> None:
    path = archive(tmp_path / "d.tar", {"x/b.txt": b"one"})
    assert cells(path, "tar", **member(path, "x/.*", label=None)) == [("one",)]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_an_archive_that_is_cut_short_anywhere_is_refused(mode: str, tmp_path: Path) -> None:
    """Also between two members, where tarfile takes the rest for all of it."""
    files = {f"x/no/{n}.txt": b"text" * 200 for n in range(3)}
    path = archive(tmp_path / "d.tar", files, mode)
    whole = path.read_bytes()
    end = 3 * (512 + 1024) if mode == "w" else len(whole)  # of the last member
    for length in range(0, end + 1 if mode == "w" else end, 64 if mode == "w" else 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"d\.tar: is damaged or cut short"):
            read(path, "tar", **member(path))


def test_an_archive_with_a_broken_header_is_refused(tmp_path: Path) -> None:
    """tarfile would leave out this member and all after it."""
    path = archive(tmp_path / "d.tar", {f"x/no/{n}.txt": b"text" for n in range(3)})
    whole = bytearray(path.read_bytes())
    whole[1024] ^= 1  # the first letter of the second name
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"d\.tar: is damaged .*no end mark"):
        read(path, "tar", **member(path))


def test_a_file_of_two_archives_is_refused(tmp_path: Path) -> None:
    """tarfile would leave out the second."""
    one = archive(tmp_path / "a.tar", {"x/no/1.txt": b"text"}).read_bytes()
    two = archive(tmp_path / "b.tar", {"x/no/2.txt": b"text"}).read_bytes()
    path = write(tmp_path, "d.tar", one + two)
    with pytest.raises(ValueError, match=r"d\.tar: .*two archives in one file"):
        read(path, "tar", **member(path))


def test_a_file_under_two_spellings_of_its_name_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "d.tar", {"x/no/1.txt": b"a", "./x/no/1.txt": b"a"})
    (sentence,) = problems(path, "tar", **member(path, "(?:[.]/)?x/(.*)/.*"))
    assert "stands twice in the archive, allowed: once" in sentence


# Parquet ------------------------------------------------------------------------------------------


def parquet(path: Path, columns: dict, **options: object) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def test_parquet_has_the_values_that_were_written(tmp_path: Path) -> None:
    when = datetime.datetime(2020, 1, 1)
    columns = {
        "text": ["a\r\n\u2028", None, "2020-01-01T00:00:00", ""],
        "label": pyarrow.array([1, 0, None, -1], pyarrow.int8()),
        "words": pyarrow.array(["x", "y", "x", None]).dictionary_encode(),
        "number": [1.5, None, 2.0, -0.0],
        "list": [["a"], [], None, ["b", "c"]],
        "flag": [True, False, None, True],
        "when": [when, None, when, when],
        "large": pyarrow.array(["p", "q", "r", "s"], pyarrow.large_string()),
    }
    path = parquet(tmp_path / "d.parquet", columns, row_group_size=3)
    values = {
        name: column.to_pylist()
        if isinstance(column, pyarrow.Array | pyarrow.DictionaryArray)
        else column
        for name, column in columns.items()
    }
    rows = read(path, "parquet")
    assert [row.where for row in rows] == ["row 1", "row 2", "row 3", "row 4"]
    for index, row in enumerate(rows):
        assert row.cells == {name: column[index] for name, column in values.items()}
        assert [type(value) for value in row.cells.values()] == [
            type(column[index]) for column in values.values()
        ]


def test_a_class_label_is_its_name(tmp_path: Path) -> None:
    """A file may number its classes in another order than the entry."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=["yes", "no"])})
    columns = {"text": ["a", "b", "c"], "label": [0, 1, None]}
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "d.parquet")
    path = tmp_path / "d.parquet"
    assert cells(path, "parquet") == [("a", "yes"), ("b", "no"), ("c", None)]
    assert cells(path, "parquet", labels="numbers") == [("a", 0), ("b", 1), ("c", None)]


@pytest.mark.parametrize("metadata", [b"{", b'{"info": {"features": {"text": {"_type": "Nope"}}}}'])
def test_broken_metadata_of_datasets_is_told(metadata: bytes, tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["a"], "label": [0]})
    table = table.replace_schema_metadata({b"huggingface": metadata})
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
    (sentence,) = problems(tmp_path / "d.parquet", "parquet")
    assert sentence.startswith("is damaged or cut short")


def test_two_parquet_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pyarrow.table([["a"], ["b"], [0]], names=["text", "text", "label"])
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
    message = "column 'text' stands twice, allowed: once"
    assert problems(tmp_path / "d.parquet", "parquet") == [message]


def test_texts_of_parquet_that_are_none_are_all_listed(tmp_path: Path) -> None:
    """Seen: NaN of pandas was trained on as the word nan, and a list as its repr."""
    frame = pandas.DataFrame({"text": ["a", None, "", "b"], "label": [0, 1, 1, 0]})
    frame.to_parquet(tmp_path / "d.parquet")
    assert [line.split(",")[0] for line in problems(tmp_path / "d.parquet", "parquet")] == [
        "row 2: column 'text' is null",
        "row 3: column 'text' is ''",
    ]
    numbers = parquet(tmp_path / "n.parquet", {"text": [1.5, float("nan")], "label": [0, 1]})
    assert [line.split(",")[0] for line in problems(numbers, "parquet")] == [
        "row 1: column 'text' is 1.5 (float)",
        "row 2: column 'text' is nan",
    ]
    lists = parquet(tmp_path / "l.parquet", {"text": [["a", "b"]], "label": [0]})
    assert problems(lists, "parquet") == [
        "row 1: column 'text' is ['a', 'b'] (list), allowed: a text"
    ]


@pytest.mark.parametrize(("content", "message"), [
    (b"", "is damaged or cut short"), (b"text,label\na,1\n", "is damaged or cut short"),
])  # fmt: skip
def test_what_is_no_parquet_is_told(content: bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, "d.parquet", content)
    assert problems(path, "parquet")[0].startswith(message)


def test_parquet_that_is_cut_short_without_rows_or_without_a_column(tmp_path: Path) -> None:
    columns = {"text": ["a"] * 100, "label": [1] * 100}
    path = parquet(tmp_path / "d.parquet", columns)
    write(tmp_path, "cut.parquet", path.read_bytes()[:-20])
    assert problems(tmp_path / "cut.parquet", "parquet")[0].startswith("is damaged or cut short")
    empty = parquet(tmp_path / "e.parquet", {name: column[:0] for name, column in columns.items()})
    assert problems(empty, "parquet") == ["has no rows, allowed: at least one"]
    assert problems(path, "parquet", text="sentence") == [
        "no column 'sentence', allowed: text, label"
    ]


def test_parquet_with_a_letter_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "d.parquet", {"text": ["abcd"], "label": [1]}, compression="none")
    content = path.read_bytes()
    assert content.count(b"abcd") >= 1
    write(tmp_path, "d.parquet", content.replace(b"abcd", b"ab\xffd"))
    assert problems(path, "parquet")[0].startswith("is damaged or cut short")


def test_a_file_name_is_no_pattern(tmp_path: Path) -> None:
    """`datasets` would read `a1.parquet` for `a[1].parquet`."""
    parquet(tmp_path / "a1.parquet", {"text": ["wrong"], "label": [0]})
    path = parquet(tmp_path / "a[1].parquet", {"text": ["right"], "label": [1]})
    assert cells(path, "parquet") == [("right", 1)]


def test_reading_asks_no_server_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    for name in ("home", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    path = parquet(tmp_path / "d.parquet", {"text": ["a"] * 10, "label": [1] * 10})
    rows = reading.records(path, entry(tmp_path, "parquet", path.name), "train")
    assert next(rows).cells == {"text": "a", "label": 1}
    assert len(list(rows)) == 9
    assert not list((tmp_path / "home").iterdir())
    assert not list((tmp_path / "temporary").iterdir())


def test_tables_are_read_without_torch_datasets_or_pandas(tmp_path: Path) -> None:
    """A login node checks files of datasets."""
    write(tmp_path, "d.csv", TABLE)
    script = (
        "import sys; from pathlib import Path; from rankwise.data import reading\n"
        "entry = {'files': {'format': 'csv'}, 'text': 'text'}\n"
        "assert reading.problems(Path('d.csv'), entry, 'train') == []\n"
        "print(*{'torch', 'datasets', 'pandas', 'numpy', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""


def test_columns_are_read_by_the_same_reader(tmp_path: Path) -> None:
    files = {
        "csv": '\ufeff"text, or so",label\na,1\n',
        "tsv": "text, or so\tlabel\na\t1\n",
        "jsonl": '{"text, or so": "a", "label": 1}\n',
        "json": '[\n{"text, or so": "a", "label": 1}\n]\n',
    }
    for file_format, content in files.items():
        path = write(tmp_path, "d", content)
        assert reading.columns(path, entry(tmp_path, file_format, "d")) == ["text, or so", "label"]
    given = entry(tmp_path, "csv", "d", columns=["a", "b"])
    assert reading.columns(write(tmp_path, "d", "x,1\n"), given) == ["a", "b"]
    assert reading.columns(tmp_path / "d", entry(tmp_path, "text", "d")) is None
    with pytest.raises(ValueError, match=re.escape("two columns are named 'text'")):
        reading.columns(write(tmp_path, "d", "text,text\n"), entry(tmp_path, "csv", "d"))
