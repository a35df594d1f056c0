"""What README and docs say is so: measured numbers come from files, and files that are named exist."""

import csv
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from helpers.doc_blocks import FENCE, pages
from helpers.repository import CLEAN, ROOT

README = (ROOT / "README.md").read_text()
NUMBER = r"\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
UNIT = (
    r"%|per cent|[KMGT]?i?B\b|bytes?\b|[mun]?s\b|seconds?\b|minutes?\b|hours?\b|h\b|[KMGT]?FLOPs?\b|nats?\b|points?\b|[kM]?[JW]\b"
    r"|(?:[kMB] )?parameters\b|times\b|x (?:faster|slower|less|more|fewer|smaller|larger)|(?:samples|tokens) (?:a|per) second"
)
QUANTITY = r"accuracy|perplexity|loss|ratio|speed-?up|throughput|latency|factor|memory|error"
MEASURED = re.compile(
    rf"(?<![\w.,/-]){NUMBER} ?(?:to {NUMBER} ?)?(?:{UNIT})|\b(?:{QUANTITY})(?: (?:of|is|was|by|at|about|falls|rises|to))* {NUMBER}"
)
# Numbers with a unit that a person typed, and why each is no result of ours.
TYPED = {
    "docs/methods.md": {
        "5 to 10 %": "the paper's setting",
        "15 %": "the formula before it, at the s and r named",
        "2 s": "a version of peft, before the verb scales",
        "2 W": "a formula: two times the weight",
        "4 bytes": "the format of a scale",
        "64 bytes": "the format of a table of levels",
    },
    "docs/benchmarks.md": {"22.7 M parameters": "the size of the encoder, which names it"},
    "docs/statistics.md": {
        "95 %": "the level that intervals are drawn at",
        "80 %": "the power that a number of seeds is planned for",
        "5 %": "the limit of a flag's rule",
        "99 %": "the level of a flag's rule",
    },
    "docs/results.md": {
        "95 %": "the level that intervals are drawn at",
        "80 %": "the power that a number of seeds is planned for",
        "2 %": "the limit of a ledger's residual",
    },
    "docs/extend/dataset.md": {"5 %": "the default of max_unknown_fraction"},
    "docs/memory.md": {"2 %": "the limit of a ledger's residual"},
}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", pages(), ids=named)
def test_measured_blocks_are_the_files_that_they_name(page: Path) -> None:
    """`python benchmarks/publish.py` fills them."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from publish import fill

    assert fill(page.read_text()) == page.read_text()


def test_the_readme_shows_a_real_study() -> None:
    assert re.search(r"<!-- begin benchmarks/laptop/summary.md -->\n\n\| model", README)


def test_the_finding_is_that_of_the_demo() -> None:
    """At rank 8 nothing is shown worse than full fine-tuning; rSVD at rank 2 and the head alone are."""
    verdicts = {cell: row["best"] for cell, row in demo_rows("summary").items()}
    assert verdicts["Full AdamW", "0"] == "best"
    assert verdicts["LoRA", "8"] == verdicts["rSVD", "8"] == "undecided"
    assert verdicts["rSVD", "2"] == verdicts["Head only", "0"] == ""
    kept = ("weights_bytes", "gradients_bytes", "optimizer_state_bytes")
    memory = {
        cell: sum(int(row[name]) for name in kept) for cell, row in demo_rows("memory").items()
    }
    assert memory["lora", "8"] < memory["rsvd", "8"] < memory["full", "0"]


def demo_rows(table: str) -> dict[tuple[str, str], dict]:
    """(method, rank) -> row of the demo's tiny model."""
    with (ROOT / f"benchmarks/demo/{table}.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "tiny"]
    return {(row["method"], row["rank"]): row for row in rows}


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120
    written = re.sub(r"<!-- begin (\S+) -->.*?<!-- end \1 -->", "", README, flags=re.DOTALL)
    assert [line for line in written.splitlines() if len(line) > 110] == []


def test_the_page_of_methods_is_what_the_command_prints() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rankwise.cli.main", "methods", "--page"],
        cwd=ROOT,
        env=CLEAN,
        capture_output=True,
        text=True,
    )
    assert done.stdout == (ROOT / "docs/methods.md").read_text(), (
        f"run `make docs/methods.md`; {done.stderr[-500:]}"
    )


def typed_numbers(page: str) -> list[str]:
    """Numbers with a measured unit in a page's own words: neither in marked blocks nor in code, which files decide."""
    words = re.sub(r"<!-- begin (\S+) -->.*?<!-- end \1 -->", "", page, flags=re.DOTALL)
    words = re.sub(r"^( *)```.*?^\1```", "", words, flags=re.DOTALL | re.MULTILINE)
    words = re.sub(r"`[^`\n]*`", "", words)
    return [found[0] for found in MEASURED.finditer(" ".join(words.split()))]


@pytest.mark.parametrize("file", [named(page) for page in pages()])
def test_no_measured_number_is_typed_by_hand(file: str) -> None:
    page = (ROOT / file).read_text()
    if file == "docs/methods.md":
        page = re.sub(
            r"^\|.*$", "", page, flags=re.MULTILINE
        )  # its tables are counted from shapes as the page is printed
    reasons = TYPED.get(file, {})
    assert sorted(set(typed_numbers(page)) - set(reasons)) == [], "see benchmarks/README.md"
    if file != "docs/methods.md":  # its words are docstrings, which others reword
        assert set(reasons) <= set(typed_numbers(page))


@pytest.mark.parametrize(("sentence", "found"), [
    ("LoRA keeps 97.1 % of it.", ["97.1 %"]),
    ("It needs 5,625,688 B, or 5.4 MiB.", ["5,625,688 B", "5.4 MiB"]),
    ("A step takes 0.16 s, 1.2e12 FLOPs and\n24 minutes in all.", ["0.16 s", "1.2e12 FLOPs", "24 minutes"]),
    ("It is 3.2 times as fast, 2x faster.", ["3.2 times", "2x faster"]),
    ("The accuracy is 0.975, at a perplexity of 14.36 and a ratio of 0.7.", ["accuracy is 0.975", "perplexity of 14.36", "ratio of 0.7"]),
    ("From 5 to 10 % less.", ["5 to 10 %"]),
    ("| LoRA | 76.9 % |", ["76.9 %"]),
    ("With torch 2.13, Python 3.11, rank 16, 3 seeds and arXiv 2106.09685 it is `12 MiB`.", []),
    ("<!-- begin benchmarks/a.md -->\n\n97.1 %\n\n<!-- end benchmarks/a.md --> and 3 s", ["3 s"]),
    ("Typed:\n```\nfits --memory 24 GiB\n```\n   ```yaml\n   a: 3 s\n   ```\nand 4 GiB", ["4 GiB"]),
])  # fmt: skip
def test_a_typed_number_would_be_found(sentence: str, found: list[str]) -> None:
    assert typed_numbers(sentence) == found


@pytest.mark.parametrize("page", pages(), ids=named)
def test_files_named_exist(page: Path) -> None:
    """Files of the repository in code and pictures; links between pages are MkDocs' to check."""
    text = FENCE.sub("", page.read_text())
    files = re.findall(
        r"`((?:config|benchmarks|tests|envs|docker|profiles|src)/[\w/.-]+\.\w+)`", text
    )
    files += re.findall(r"\]\((?:\.\./)*(benchmarks/[\w/.-]+)\)", text)
    invented = {"config/mine.yaml", "src/rankwise/methods/norms_only.py"}
    assert [file for file in files if file not in invented and not (ROOT / file).is_file()] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_of_pages_in_the_root_exist(page: str) -> None:
    for link in re.findall(r"\]\(([\w/.-]+)(?:#[\w-]+)?\)", (ROOT / page).read_text()):
        assert (ROOT / link).is_file(), link


def test_the_readmes_method_is_the_example_file() -> None:
    shown = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    assert shown == (ROOT / "docs/examples/methods/norms_only.py").read_text()


def test_the_readmes_entry_names_the_example() -> None:
    """tests/methods/test_own_methods.py holds the example to what every method promises."""
    (entry,) = yaml.safe_load(re.search(r"`(norms_only: \{.*?\})`", README)[1]).values()
    assert entry == {"module": "norms_only", "learning_rate": 1e-3}


def test_the_terms_of_our_own_are_in_the_glossary() -> None:
    glossary = (ROOT / "docs/glossary.md").read_text()
    for term in (
        "cell",
        "curve",
        "request",
        "digest",
        "lease",
        "taint",
        "trial",
        "selection slice",
    ):
        assert re.search(rf"^{term}$\n:   \w", glossary, re.MULTILINE), term


def test_the_citation_names_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_page_is_in_the_navigation() -> None:
    """A page that is generated or written, and not in mkdocs.yml, would be found by search alone."""
    sys.path.insert(0, str(ROOT / "docs"))
    from generate import hook

    navigation = (ROOT / "mkdocs.yml").read_text()
    written = {
        named(page).removeprefix("docs/") for page in pages() if page.is_relative_to(ROOT / "docs")
    }
    generated = {page for page in hook.pages() if not page.startswith("methods/")}
    assert [page for page in sorted(written | generated) if page not in navigation] == []


@pytest.mark.parametrize("page", pages(), ids=named)
def test_a_page_shows_the_files_that_it_names(page: Path) -> None:
    """A line like `--8<-- "file"` puts a file into the page; a formatter made `--8 < --` of it."""
    for line in page.read_text().splitlines():
        if re.match(r"-+ ?8", line):
            file = re.fullmatch(r'--8<-- "(.+)"', line)
            assert file, line
            assert (ROOT / file[1]).is_file(), line
