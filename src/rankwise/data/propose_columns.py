"""Which column of a table is the text and which the label, from what the columns hold.

A label has few distinct values, each short and each of several rows; a text has words. Where two
columns fit, nothing is guessed: the sentence names them, and the option that chooses.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from rankwise.data import answers
from rankwise.data.record import Record, names_of, shown

MAX_CLASSES = 500
MAX_DISTINCT = 5_000  # values of a column that are told apart
MIN_ROWS_A_CLASS = 2  # in the mean
LABEL_CHARACTERS = 60  # of the longest name of a class
TEXT_WORDS = 3  # of a text, in the mean
# Of several columns that could be the label, one with such a name is it.
LABEL_NAMES = ("label", "labels", "class")


@dataclass
class Column:
    """The contents of a column.

    Attributes:
        name: Its name.
        rows: Number of rows.
        missing: Rows without a value: null, or an empty text.
        texts: Rows whose value is a text.
        words: Number of words in all its texts.
        longest: Characters of its longest value.
        values: Distinct value -> number of rows; at most `MAX_DISTINCT` values.
        nested: Whether a value is a list or an object.
        numbers: Rows whose value is a finite number, or a text that is one.
        decimals: Those of them that are no whole numbers.
        lengths: Of rows that are lists, their lengths, in the order of the rows.
        items: Distinct item of the lists -> how often it is there; at most `MAX_DISTINCT` items.
        has_repeats: Whether a list has an item twice.
        has_other_items: Whether an item of a list is no text, or a blank one.
    """

    name: str
    rows: int = 0
    missing: int = 0
    texts: int = 0
    words: int = 0
    longest: int = 0
    values: Counter = field(default_factory=Counter)
    nested: bool = False
    numbers: int = 0
    decimals: int = 0
    lengths: list[int] = field(default_factory=list)
    items: Counter = field(default_factory=Counter)
    has_repeats: bool = False
    has_other_items: bool = False

    def add(self, value: object) -> None:
        """Count the value of one row."""
        self.rows += 1
        if value is None or value == "":
            self.missing += 1
            return
        if isinstance(value, list | dict):
            self.nested = True
            if isinstance(value, list):
                self._add_list(value)
            return
        number = answers.as_number(value)
        if number is not None:
            self.numbers += 1
            self.decimals += not number.is_integer()
        if isinstance(value, str):
            self.texts += 1
            self.words += len(value.split())
        written = str(value)
        self.longest = max(self.longest, len(written))
        if written in self.values or len(self.values) < MAX_DISTINCT:
            self.values[written] += 1

    def _add_list(self, items: list) -> None:
        self.lengths.append(len(items))
        texts = [item for item in items if isinstance(item, str) and item.strip()]
        self.has_other_items |= len(texts) < len(items)
        self.has_repeats |= len(set(texts)) < len(texts)
        for item in texts:
            if item in self.items or len(self.items) < MAX_DISTINCT:
                self.items[item] += 1

    @property
    def distinct(self) -> str:
        """The number of distinct values, in words."""
        number = f"{len(self.values):,}"
        return f"{number} or more" if len(self.values) == MAX_DISTINCT else number

    @property
    def mean_words(self) -> float:
        """Words of a text, in the mean; 0 without texts."""
        return self.words / self.texts if self.texts else 0.0

    def is_label(self) -> bool:
        """Whether the values could be classes."""
        few = 2 <= len(self.values) <= MAX_CLASSES
        repeated = self.rows >= MIN_ROWS_A_CLASS * len(self.values)
        return few and repeated and not self.nested and self.longest <= LABEL_CHARACTERS

    def is_text(self) -> bool:
        """Whether the values have words."""
        return self.texts > 0 and self.mean_words >= TEXT_WORDS

    def has_numbers(self) -> bool:
        """Whether every row has a number, and not all have the same one."""
        return 0 < self.numbers == self.rows and len(self.values) >= 2

    def has_decimals(self) -> bool:
        """Whether every row has a number, and some are no whole ones."""
        return self.has_numbers() and self.decimals > 0

    def has_lists(self) -> bool:
        """Whether every row is a list of texts, and none is empty."""
        is_every_row = 0 < len(self.lengths) == self.rows
        return is_every_row and not self.has_other_items and min(self.lengths) > 0

    def has_names(self) -> bool:
        """Whether every row is a list of different names, which are few, short and repeated."""
        few = 2 <= len(self.items) <= MAX_CLASSES
        repeated = self.items.total() >= MIN_ROWS_A_CLASS * len(self.items)
        is_every_row = len(self.lengths) == self.rows
        is_odd = self.has_repeats or self.has_other_items
        short = all(len(item) <= LABEL_CHARACTERS for item in self.items)
        return is_every_row and few and repeated and short and not is_odd

    def described(self) -> str:
        """The column in words, for a terminal."""
        if self.items and len(self.lengths) == self.rows - self.missing:
            number = f"{len(self.items):,}"
            more = " or more" if len(self.items) == MAX_DISTINCT else ""
            kind = f"lists, {number}{more} distinct texts in them"
        elif self.nested:
            kind = "lists or objects"
        elif len(self.values) == 1:
            kind = f"one value, {shown(next(iter(self.values)))}"
        elif self.is_text():
            kind = f"{self.distinct} distinct texts, {self.mean_words:.3g} words in the mean"
        elif self.has_decimals():
            kind = f"{self.distinct} distinct numbers"
        else:
            kind = f"{self.distinct} distinct {'short texts' if self.texts else 'values'}"
        return f"{names_of([self.name])} ({kind})"


def look(records: Iterable[Record]) -> dict[str, Column]:
    """The columns of a file, from all its rows."""
    columns: dict[str, Column] = {}
    for record in records:
        for name, value in record.cells.items():
            columns.setdefault(name, Column(name)).add(value)
    return columns


def label(columns: dict[str, Column], where: str, given: str | None, texts: list[str]) -> str:
    """The column of the label.

    Args:
        columns: All columns.
        where: The file, for messages.
        given: The column that the user names, if any.
        texts: Columns that the user names as the text.

    Raises:
        ValueError: No column, or several, could be the label; or the one that is named cannot.
    """
    if given is not None:
        check_is_there(columns, where, "--label", [given])
        _check_label(columns[given], where)
        return given
    fitting = [name for name, column in columns.items() if column.is_label() and name not in texts]
    # Texts may repeat; a column of words is the label only where no other one can be.
    fitting = [name for name in fitting if not columns[name].is_text()] or fitting
    named = [name for name in fitting if name.lower() in LABEL_NAMES]
    if len(fitting) == 1 or len(named) == 1:
        return (named if len(named) == 1 else fitting)[0]
    if fitting:
        raise ValueError(
            f"{where}: the label could be {_listed(columns, fitting)}, allowed: one column; "
            f"choose: --label {fitting[0]}"
        )
    others = [column for name, column in columns.items() if name not in texts]
    raise ValueError(
        f"{where}: no column can be the label: got {'; '.join(c.described() for c in others)}, "
        f"allowed: 2 to {MAX_CLASSES} distinct short values, {MIN_ROWS_A_CLASS} rows each in the "
        "mean; choose one (--label COLUMN), or train on the text alone "
        f"(--task language_modelling){_or_regression(others)}"
    )


def _or_regression(columns: Iterable[Column]) -> str:
    """How to predict a column of numbers, if there is one."""
    for column in columns:
        if column.has_numbers():
            return f"; or predict numbers: --task regression --label {column.name}"
    return ""


def _check_label(column: Column, where: str) -> None:
    """Check that a named column can be a label."""
    got = f"{where}: label {column.name!r}: got"
    if column.nested:
        raise ValueError(f"{got} lists or objects, allowed: one value a row of a classification")
    if len(column.values) < 2:
        only = next(iter(column.values), None)
        what = f"one class only, {only!r}" if only is not None else "no value"
        raise ValueError(f"{got} {what} in {column.rows:,} rows, allowed: at least 2 classes")
    if len(column.values) > MAX_CLASSES or column.rows < MIN_ROWS_A_CLASS * len(column.values):
        raise ValueError(
            f"{got} {column.distinct} distinct values in {column.rows:,} rows, allowed: at most "
            f"{MAX_CLASSES} classes, {MIN_ROWS_A_CLASS} rows each in the mean; choose another "
            f"column, or group the values into classes{_or_regression([column])}"
        )


def text(
    columns: dict[str, Column], where: str, given: list[str], label_column: str | None
) -> list[str]:
    """The columns of the text.

    Args:
        columns: All columns.
        where: The file, for messages.
        given: The columns that the user names; several are joined by a space.
        label_column: The column of the label, which is no text.

    Raises:
        ValueError: No column, or several, could be the text; or one that is named is not there.
    """
    if given:
        check_is_there(columns, where, "--text", given)
        if label_column in given:
            raise ValueError(
                f"{where}: got {label_column!r} as the text and the label, allowed: one of them: a "
                "model would read its answer"
            )
        return given
    others = [name for name in columns if name != label_column]
    fitting = [name for name in others if columns[name].is_text()]
    if len(fitting) == 1:
        return fitting
    if fitting:
        joined = " ".join(fitting)
        raise ValueError(
            f"{where}: the text could be {_listed(columns, fitting)}, allowed: a choice; one: "
            f"--text {fitting[0]}, or all, joined by a space: --text {joined}"
        )
    with_texts = [name for name in others if columns[name].texts]
    if len(with_texts) == 1:  # short texts, such as names, are the only ones that there are
        return with_texts
    raise ValueError(
        f"{where}: no column has texts: got "
        f"{'; '.join(columns[name].described() for name in others) or 'no other column'}, "
        "allowed: a column of words; choose one: --text COLUMN"
    )


def check_is_there(columns: dict[str, Column], where: str, option: str, given: list[str]) -> None:
    """Check that the columns which an option names are in the file.

    Raises:
        ValueError: One is not; the message has the columns that are there.
    """
    for name in given:
        if name not in columns:
            raise ValueError(f"{where}: {option}: got {name!r}, allowed: {names_of(columns)}")


def _listed(columns: dict[str, Column], names: list[str]) -> str:
    return " or ".join(columns[name].described() for name in names)


def looks_like_a_row(header: list[str], columns: dict[str, Column]) -> str | None:
    """The first name of a header that looks like a value: a number, or a value of its column."""
    for name in header:
        is_number = name.strip().lstrip("+-").replace(".", "", 1).isdigit()
        if is_number or columns[name].values[name] > 0 or len(name.split()) > 2 * TEXT_WORDS:
            return name
    return None
