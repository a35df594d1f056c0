"""Every study, entry and mistake that README and docs show does what they say."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from helpers.doc_blocks import Block, blocks
from helpers.repository import ROOT
from rankwise.study.plan import Plan

sys.path.insert(0, str(ROOT / "docs"))
from generate import mistakes

EXAMPLES = mistakes.read(mistakes.PAGE.read_text(encoding="utf-8"))
YAML = [
    block
    for block in blocks("yaml")
    if block.page != "docs/mistakes.md" and "--8<--" not in block.text
]
STUDIES = [block for block in YAML if block.text.startswith("name:")]
ENTRIES = [block for block in YAML if not block.text.startswith("name:")]


@pytest.mark.parametrize("block", STUDIES, ids=lambda block: block.page)
def test_a_study_shown_plans(block: Block) -> None:
    plan = Plan(yaml.safe_load(block.text), ROOT, "config/mine.yaml")
    assert any(plan.cells(measurement) for measurement in ("train", "memory", "flops", "ledger"))


def test_the_readmes_study_has_twelve_lines() -> None:
    study = next(block for block in STUDIES if block.page == "README.md")
    assert len(study.text.splitlines()) == 12


@pytest.fixture(scope="module")
def small_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = mistakes.copy(tmp_path_factory.mktemp("mistakes"))
    for kind in ("methods", "optim"):
        for example in (ROOT / "docs/examples" / kind).glob("*.py"):
            (root / "src/rankwise" / kind / example.name).write_text(example.read_text())
    return root


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_a_mistake_gives_the_sentence_shown(example: mistakes.Mistake, small_copy: Path) -> None:
    """`python docs/generate/mistakes.py` writes the sentences anew."""
    said = mistakes.run(example, small_copy)
    assert said
    assert "\n" not in said
    assert said == example.said.strip()


def test_mistakes_are_shown() -> None:
    assert len(EXAMPLES) == mistakes.PAGE.read_text(encoding="utf-8").count("\n## ")


@pytest.mark.parametrize("block", ENTRIES, ids=lambda block: f"{block.page}:{block.text[:20]}")
def test_an_entry_shown_is_one(block: Block) -> None:
    """Entries of methods: the schema's keys, a module that exists here or among the examples."""
    for name, entry in yaml.safe_load(block.text).items():
        assert {"module", "learning_rate"} <= set(entry), name
        for kind, module in [
            ("methods", entry["module"]),
            ("optim", entry.get("optimizer", {}).get("module", "adamw")),
        ]:
            places = [ROOT / "src/rankwise" / kind, ROOT / "docs/examples" / kind]
            assert any((place / f"{module}.py").is_file() for place in places), module


def test_the_first_mistake_would_be_found() -> None:
    page = "## A\n\nWords.\n\n```yaml\nname: a\n```\n\n```text\nsaid\n```\n"
    assert [(one.title, one.given, one.said) for one in mistakes.read(page)] == [
        ("A", "name: a\n", "said\n")
    ]
    assert re.search("mine", mistakes.STUDY)
