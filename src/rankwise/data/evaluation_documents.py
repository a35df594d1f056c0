"""The documents of an evaluation, read from files: questions with their choices and right answers.

Planning counts them, and jobs score them, so this module loads the standard library only. The forms
of files:

    llm_adapters       a JSON list of {instruction, answer}, as LLM-Adapters (arXiv 2304.01933)
                       publishes its tests; the instruction holds question and choices
    gsm8k              an object {question, answer} a line; `#### n` ends an answer
    mmlu               a zip of {dev,val,test}/SUBJECT_{dev,val,test}.csv: question, four choices,
                       letter
    hellaswag_letters  JSON of {dev, test}: lists of {question, choices: {A..D}, answer}
"""

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

from rankwise.data.reading.bombs import check_unpacked

LETTERS = "ABCD"
# The head of an instruction of LLM-Adapters, then its question and the rest.
HEADS = (
    "Please choose the correct answer to the question: ",
    "Please choose the correct solution to the question: ",
    "Please choose the correct answer to fill in the blank to complete the given sentence: ",
    "Please answer the following question with true or false, question: ",
)
FORMAT = re.compile(r"\s*Answer format: (?P<names>\S+)\s*$")
NUMBER = re.compile(r"\d+$")
MMLU_NAME = re.compile(r"(?:.*/)?(?P<split>dev|val|test)/(?P<subject>\w+)_(?P=split)\.csv")


def read(file: Path, form: str, use: str) -> list[dict]:
    """The documents of a file, in its order.

    Args:
        file: The file.
        form: One of the forms that the module's docstring lists.
        use: `test` or `few_shot`; a file of MMLU or HellaSwag holds both.

    Returns:
        One mapping a document. `part` is the subject of MMLU; `question` is there in all forms.
        llm_adapters: also `instruction`, `answer`, and, as far as the instruction lists choices,
        `choices` and `gold`, the number of the right one from 0; a sentence with a blank also has
        `contexts` (the sentence up to the blank, filled with each choice) and `ending`. gsm8k:
        `answer`. mmlu and hellaswag_letters: `choices` and `gold`.

    Raises:
        ValueError: The file is not of this form; the message names the file and the row.
    """
    readers = {
        "llm_adapters": _llm_adapters,
        "gsm8k": _gsm8k,
        "mmlu": _mmlu,
        "hellaswag_letters": _hellaswag,
    }
    try:
        documents = list(readers[form](file, use))
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        zipfile.BadZipFile,
    ) as error:
        if isinstance(error, _WrongRowError):
            raise
        why = f"no key {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{file}: got a file that is not of the form {form} ({why})") from None
    if not documents:
        raise ValueError(f"{file}: got no document for {use}, allowed: at least one")
    return documents


class _WrongRowError(ValueError):
    """A row that is not of the file's form."""

    def __init__(self, file: Path, number: int, got: object, allowed: str):
        super().__init__(f"{file}: row {number}: got {got!r}, allowed: {allowed}")


# LLM-Adapters -------------------------------------------------------------------------------------


def _llm_adapters(file: Path, use: str) -> Iterable[dict]:  # noqa: ARG001 - a file has one use
    rows = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(rows, list):
        raise ValueError("allowed: a list of {instruction, answer}")
    for number, row in enumerate(rows, start=1):
        instruction, answer = row["instruction"], row["answer"]
        if not instruction.strip() or not str(answer).strip():
            raise _WrongRowError(
                file, number, row, "an instruction and an answer that are not empty"
            )
        yield {"instruction": instruction, "answer": str(answer), **_parsed(file, number, row)}


def _parsed(file: Path, number: int, row: dict) -> dict:
    """Question, choices and the right one of an instruction, as far as it lists choices."""
    text = row["instruction"]
    head = next((head for head in HEADS if text.startswith(head)), None)
    ending = FORMAT.search(text)
    if head is None or ending is None:
        return {"question": text}
    names = ending["names"].split("/")
    if row["answer"] not in names:
        raise _WrongRowError(file, number, row["answer"], f"one of {', '.join(names)}")
    gold, body = names.index(row["answer"]), text[len(head) : ending.start()]
    if not NUMBER.search(names[0]):  # true/false
        return {"question": body.strip().removesuffix("?"), "choices": names, "gold": gold}
    question, choices = _split_choices(body, names)
    if choices is None:
        raise _WrongRowError(file, number, text, f"a text with {', '.join(names)}, each once")
    parsed = {"question": question, "choices": choices, "gold": gold}
    before, blank, after = question.partition("_")
    if names[0].startswith("option"):
        if not blank:
            raise _WrongRowError(file, number, question, "a sentence with a blank: _")
        contexts = [before + choice for choice in choices]
        parsed |= {"contexts": contexts, "ending": after.strip()}
    return parsed


def _split_choices(body: str, names: list[str]) -> tuple[str, list[str] | None]:
    """The question and the choices behind `Answer1: `, `Answer2: ` and so on, in their order."""
    places = []
    start = 0
    for name in names:
        mark = f"{name.capitalize()}: "
        place = body.find(mark, start)
        if place < 0 and body.rstrip().endswith(mark.strip()):  # the last choice is empty
            place = body.rindex(mark.strip())
        if place < 0:
            return body, None
        places.append((place, place + len(mark)))
        start = place + len(mark)
    ends = [place for place, _ in places[1:]] + [len(body)]
    choices = [body[begin:end].strip() for (_, begin), end in zip(places, ends, strict=True)]
    return body[: places[0][0]].strip(), choices


# Other forms --------------------------------------------------------------------------------------


def _gsm8k(file: Path, use: str) -> Iterable[dict]:  # noqa: ARG001 - a file has one use
    lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        row = json.loads(line)
        if "####" not in row["answer"]:
            raise _WrongRowError(
                file, number, row["answer"], "an answer that ends with #### and a number"
            )
        yield {"question": row["question"], "answer": row["answer"]}


def _mmlu(file: Path, use: str) -> Iterable[dict]:
    split = "test" if use == "test" else "dev"
    with zipfile.ZipFile(file) as archive:
        check_unpacked(file, sum(info.file_size for info in archive.infolist()))
        for name in sorted(archive.namelist()):
            found = MMLU_NAME.fullmatch(name)
            if not found or found["split"] != split:
                continue
            text = io.TextIOWrapper(archive.open(name), encoding="utf-8", newline="")
            for number, row in enumerate(csv.reader(text), start=1):
                if len(row) != 6 or row[5] not in LETTERS:
                    raise _WrongRowError(file / name, number, row, "question, A, B, C, D, letter")
                yield {
                    "part": found["subject"],
                    "question": row[0],
                    "choices": row[1:5],
                    "gold": LETTERS.index(row[5]),
                }


def _hellaswag(file: Path, use: str) -> Iterable[dict]:
    rows = json.loads(file.read_text(encoding="utf-8"))["test" if use == "test" else "dev"]
    for number, row in enumerate(rows, start=1):
        letters = list(row["choices"])
        if row["answer"] not in letters:
            raise _WrongRowError(file, number, row["answer"], f"one of {', '.join(letters)}")
        choices = [row["choices"][letter] for letter in letters]
        yield {
            "question": row["question"],
            "choices": choices,
            "gold": letters.index(row["answer"]),
        }
