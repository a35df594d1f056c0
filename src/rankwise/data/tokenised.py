"""Encoded examples, made once and shared by all runs that need the same ones.

The examples of a split follow from its rows, the tokenizer, the task's `encode` and the length of a
text. The digest of these names a folder of `results/.cache/tokenised`, so 300 cells on one dataset
tokenise it once. The first job that needs the examples builds the folder under a hidden name and
renames it; others wait for it. A job that is killed leaves nothing that another one would read. The
folder is a cache and may be deleted at any time.

Source: Hugging Face `datasets` writes the Arrow file and maps it into memory.
"""

import bisect
import contextlib
import fcntl
import hashlib
import importlib.metadata
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
from datasets import Dataset, Features, List, Value
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from rankwise.core import content, paths, provenance, result
from rankwise.core.files import part_of
from rankwise.data.arrow import BATCH_ROWS, as_columns, column_type, open_table, write_columns
from rankwise.data.encoders import Encoder

TOKENISED = paths.CACHE / "tokenised"
EXAMPLES, DESCRIPTION = "examples.arrow", "tokenised.json"
IDS = "input_ids"
TOKEN_IDS = List(Value("int32"))  # no vocabulary has 2^31 tokens
LIBRARIES = ("tokenizers", "transformers")


class Split(NamedTuple):
    """The rows of a prepared split.

    Attributes:
        name: For messages and the log.
        file: The Arrow file with the rows.
        sha256: Of that file.
    """

    name: str
    file: Path
    sha256: str


class Examples(Sequence[dict]):
    """Examples in a memory-mapped file. `examples[i]` is the dict that a task's `encode` makes.

    Args:
        table: With a column of token ids, and columns of numbers or of lists of integers.
    """

    def __init__(self, table: Dataset):
        self._table = table
        is_list = {name: isinstance(kind, List) for name, kind in table.features.items()}
        self._lists = [name for name in table.column_names if is_list[name] and name != IDS]
        self._numbers = [name for name in table.column_names if not is_list[name]]
        self._chunks: list[_Chunk] = []
        self._ends: list[int] = []  # of each chunk: the index of the next chunk's first example
        end = 0
        for batch in table.data.to_batches():
            if batch.num_rows:
                end += batch.num_rows
                self._ends.append(end)
                self._chunks.append(_chunk(batch, self._numbers, self._lists))

    def __len__(self) -> int:
        return len(self._table)

    def count(
        self, token: int, apart_from: Collection[int] = (), column: str = IDS
    ) -> tuple[int, int]:
        """How often a token id occurs, and of how many tokens.

        Args:
            token: The id.
            apart_from: Ids that do not count, neither as this token nor among all.
            column: The lists of tokens: those of the texts, or of the targets.
        """
        occurrences = total = 0
        for chunk in self._chunks:
            lists = chunk.ids if column == IDS else chunk.lists[column]
            ids = lists.joined()
            ids = ids[~np.isin(ids, list(apart_from))]
            occurrences += int(np.count_nonzero(ids == token))
            total += len(ids)
        return occurrences, total

    def lengths(self, column: str = IDS) -> np.ndarray:  # (examples,)
        """The number of tokens of each example.

        Args:
            column: The lists of tokens: those of the texts, or of the targets.
        """
        lists = [chunk.ids if column == IDS else chunk.lists[column] for chunk in self._chunks]
        return np.concatenate([np.diff(one.starts) for one in lists] or [np.zeros(0, dtype=int)])

    def total(self, column: str) -> int | None:
        """The sum of a column of numbers over all examples; None without such a column."""
        if column not in self._numbers:
            return None
        return sum(int(chunk.numbers[column].sum()) for chunk in self._chunks)

    def __getitem__(self, index: int | slice) -> dict | list[dict]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        number = bisect.bisect_right(self._ends, position)
        chunk = self._chunks[number]
        row = position - self._ends[number] + len(chunk.ids.starts) - 1
        example = {IDS: chunk.ids[row]}
        for name in self._numbers:
            example[name] = chunk.numbers[name][row].item()
        for name in self._lists:
            example[name] = chunk.lists[name][row]
        return example


class _Lists(NamedTuple):
    """Views of a column of lists.

    Attributes:
        starts: Index of each list's first value, and the end of the last; (examples + 1,).
        values: Of all lists, one after another.
    """

    starts: np.ndarray
    values: np.ndarray

    def __getitem__(self, row: int) -> list[int]:
        return self.values[self.starts[row] : self.starts[row + 1]].tolist()

    def joined(self) -> np.ndarray:
        """The values of these lists; `values` may hold more, which belong to other batches."""
        return self.values[self.starts[0] : self.starts[-1]]


class _Chunk(NamedTuple):
    """Views of one record batch of the file.

    Attributes:
        ids: The token ids of each example, int32.
        numbers: Column -> a value for each example.
        lists: Column -> a list for each example.
    """

    ids: _Lists
    numbers: dict[str, np.ndarray]
    lists: dict[str, _Lists]


def _chunk(batch: object, numbers: list[str], lists: list[str]) -> _Chunk:
    """The views of a pyarrow record batch, which are faster to read than the batch itself."""

    def of_lists(name: str) -> _Lists:
        column = batch.column(name)
        return _Lists(column.offsets.to_numpy(), column.values.to_numpy())

    return _Chunk(
        of_lists(IDS),
        {name: batch.column(name).to_numpy() for name in numbers},
        {name: of_lists(name) for name in lists},
    )


def examples(split: Split, encoder: Encoder) -> Examples:
    """The encoded examples of a split: from the cache, or made and kept there.

    Args:
        split: Its rows, already checked against their SHA-256.
        encoder: How to encode them.
    """
    made_of = {"rows_sha256": split.sha256, **_identity(encoder)}
    folder = TOKENISED / provenance.digest(made_of)
    if not _is_whole(folder, made_of):
        TOKENISED.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            if not _is_whole(folder, made_of):  # nobody has made it meanwhile
                _build(folder, made_of, split, encoder)
                return Examples(open_table(folder / EXAMPLES))
    rows = result.read_json(folder / DESCRIPTION)["rows"]
    _log(f"tokenised {split.name}: {rows:,} rows, from the cache")
    return Examples(open_table(folder / EXAMPLES))


def _identity(encoder: Encoder) -> dict:
    """Everything but the rows that decides what the examples are."""
    task = encoder.task.__name__
    return {
        "tokenizer_sha256": _tokenizer_sha256(encoder.tokenizer),
        "task": task,
        "settings": encoder.settings,
        "function": encoder.of_batches,
        "code": {name: _code(name) for name in (task, __name__)},
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def _tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest of everything that decides which ids a text becomes."""
    backend = tokenizer.backend_tokenizer
    # Both are set by each call, so they say what the last call was, and not what the tokenizer is.
    backend.no_truncation()
    backend.no_padding()
    settings = [
        type(tokenizer).__name__,
        tokenizer.truncation_side,
        tokenizer.split_special_tokens,
        tokenizer.eos_token,
        tokenizer.bos_token,
        tokenizer.chat_template,
    ]
    return hashlib.sha256(f"{settings}{backend.to_str()}".encode()).hexdigest()


def _code(module: str) -> str:
    return provenance.code_digest(paths.module_file(module))


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# The folder ---------------------------------------------------------------------------------------


def _is_whole(folder: Path, made_of: dict) -> bool:
    """Whether the examples are there as they were written."""
    file, description = folder / EXAMPLES, folder / DESCRIPTION
    if not description.is_file():
        return False
    try:
        stored = result.read_json(description)
        difference = content.difference(file, stored["sha256"])
    except (ValueError, KeyError):
        difference = f"{description} cannot be read"
    else:
        if difference is None and stored["made_of"] == made_of:
            return True
    _log(f"{file}: {difference or 'made of something else'}; tokenising again")
    return False


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let one process at a time build a folder.

    The lock saves work and decides nothing: a folder appears whole, by a rename. So where a file
    system has no locks (some network file systems), two jobs build it, and one result stays.
    """
    with folder.with_name(f".{folder.name}.lock").open("w") as stream:
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield  # closing the file ends the lock


def _build(folder: Path, made_of: dict, split: Split, encoder: Encoder) -> None:
    """Encode the rows of a split, and put the folder in place."""
    start = time.perf_counter()
    rows = open_table(split.file)
    part = part_of(folder)  # what killed jobs have left is swept when a study is planned
    try:
        part.mkdir()
        count = _write_examples(part / EXAMPLES, rows, split.name, encoder)
        description = {
            "what": f"split {split.name} of {split.file.parent.name}, for {made_of['task']}",
            "made_of": made_of,
            "rows": len(rows),
            "examples": count,
            "sha256": provenance.file_sha256(part / EXAMPLES),
        }
        result.write_json(part / DESCRIPTION, description)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one; who reads it keeps its file
        try:
            part.rename(folder)
        except OSError:  # without locks, another job may have been faster
            if not _is_whole(folder, made_of):
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    seconds = time.perf_counter() - start
    _log(f"tokenised {split.name}: {len(rows):,} rows in {seconds:.1f} s")


# Encoding -----------------------------------------------------------------------------------------


def _write_examples(file: Path, rows: Dataset, split: str, encoder: Encoder) -> int:
    """Write the examples of all rows, and return how many they are."""
    title, is_shown = f"tokenising {split}", sys.stderr.isatty()
    if encoder.of_batches:
        bar = tqdm(rows.iter(BATCH_ROWS), title, -(-len(rows) // BATCH_ROWS), disable=not is_shown)
        # A batch is empty if its text is shorter than a block.
        batches = filter(None, encoder.encode(map(_rows, bar)))
        first = next(batches, [])
        columns = map(as_columns, itertools.chain([first] if first else [], batches))
        return write_columns(file, _features(first), columns)
    if not len(rows):
        return write_columns(file, _features([]), [])
    features = _features(encoder.encode_rows(_rows(rows[:1])))
    if not is_shown:
        datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(dir=file.parent) as temporary:
        # In one process: a fast tokenizer uses all cores itself, and with `num_proc` datasets forks
        # a process that has threads, and replaces `os.environ`.
        encoded = rows.map(
            lambda columns: as_columns(encoder.encode_rows(_rows(columns))),
            batched=True,
            remove_columns=rows.column_names,
            features=features,
            cache_file_name=str(Path(temporary, "encoded.arrow")),
            load_from_cache_file=False,
            new_fingerprint="encoded",  # else the tokenizer is pickled to compute one
            desc=title,
        )
        tables = encoded.with_format("arrow").iter(BATCH_ROWS)
        columns = ({name: table[name] for name in features} for table in tables)
        return write_columns(file, features, columns)


def _features(examples: list[dict]) -> Features:
    """The columns of examples, by the first of them."""
    others = examples[0] if examples else {}
    types = {name: column_type(value) for name, value in others.items() if name != IDS}
    return Features({IDS: TOKEN_IDS, **types})


def _rows(columns: dict[str, list]) -> list[dict]:
    """The rows of a batch that `datasets` gives as columns."""
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]
