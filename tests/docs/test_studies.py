"""Every study, entry and mistake that README and docs show does what they say."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers.doc_blocks import Block, blocks
from helpers.repository import CLEAN, ROOT, run_snakemake
from helpers.stored import made
from rankwise.core import paths, schemas
from rankwise.study import evaluations
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
EVALUATIONS = [block for block in ENTRIES if block.page == "docs/evaluations.md"]
DATASETS = [block for block in ENTRIES if block.page == "docs/extend/dataset.md"]
ENTRIES = [block for block in ENTRIES if block not in (*EVALUATIONS, *DATASETS)]


@pytest.mark.parametrize("block", STUDIES, ids=lambda block: block.page)
def test_a_study_shown_plans(block: Block) -> None:
    plan = Plan(yaml.safe_load(block.text), ROOT, "config/mine.yaml")
    assert any(plan.cells(measurement) for measurement in ("train", "memory", "flops", "ledger"))


def test_the_readmes_study_is_short() -> None:
    study = next(block for block in STUDIES if block.page == "README.md")
    assert len(study.text.splitlines()) <= 12


ASKING = [
    file.name
    for file in sorted((ROOT / "config").glob("*.yaml"))
    if "evaluate" in yaml.safe_load(file.read_text(encoding="utf-8"))
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ASKING)
def test_a_shipped_study_with_evaluations_makes_its_graph(name: str, clone: Path) -> None:
    """Every rule finds the inputs, the resources and the request of each of its jobs."""
    study = f"config/{name}"
    plan = Plan(yaml.safe_load((clone / study).read_text(encoding="utf-8")), clone, study)
    done = run_snakemake(clone, "-n", "--quiet", "rules", "--configfile", study)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = re.findall(r"^evaluate +(\d+)$", done.stdout + done.stderr, re.MULTILINE)
    assert set(map(int, counts)) == {len(plan.cells("evaluate"))}


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


@pytest.mark.parametrize("block", EVALUATIONS, ids=lambda block: block.text[:20])
def test_an_evaluation_shown_is_one(block: Block) -> None:
    given = yaml.safe_load(block.text)
    checked = schemas.check(given, paths.SCHEMAS / "evaluations.schema.yaml", block.page)
    for name, entry in checked.items():
        evaluations.check_entry(name, entry)


@pytest.mark.parametrize("block", DATASETS, ids=lambda block: block.text[:20])
def test_a_dataset_shown_is_one(block: Block, tmp_path: Path) -> None:
    """A project with these entries alone reads them."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config/datasets.yaml").write_text(block.text)
    named = list(yaml.safe_load(block.text))
    grid = {"models": ["gpt2"], "datasets": named, "methods": ["full"], "seeds": [0]}
    study = {"name": "mine", "question": "?", "device": "cpu", "train": [grid]}
    assert [
        cell.dataset for cell in Plan(study, tmp_path, "config/mine.yaml").cells("train")
    ] == named


@pytest.mark.parametrize("block", ENTRIES, ids=lambda block: f"{block.page}:{block.text[:20]}")
def test_an_entry_shown_is_one(block: Block) -> None:
    """Entries of methods: the schema's keys, a module that exists here or among the examples."""
    for name, entry in yaml.safe_load(block.text).items():
        assert {"module", "learning_rate"} <= set(entry), name
        for kind, module in [
            ("methods", entry["module"]),
            ("optim", entry.get("optimizer", {}).get("module", "adamw")),
        ]:
            if ":" in module and not module.startswith("torch."):
                source = module.partition(":")[0].replace(".", "/")
                assert (ROOT / f"docs/examples/package/{source}.py").is_file(), module
            elif ":" not in module:
                places = [ROOT / "src/rankwise" / kind, ROOT / "docs/examples" / kind]
                assert any((place / f"{module}.py").is_file() for place in places), module


def test_the_first_mistake_would_be_found() -> None:
    page = "## A\n\nWords.\n\n```yaml\nname: a\n```\n\n```text\nsaid\n```\n"
    assert [(one.title, one.given, one.said) for one in mistakes.read(page)] == [
        ("A", "name: a\n", "said\n")
    ]
    assert re.search("mine", mistakes.STUDY)


# The folder of examples is a project of its own: entries, methods, optimizers and data ----------------


def example_study(**grids: object) -> dict:
    return {"name": "examples", "question": "Do the examples run?", "device": "cpu", **grids}


def test_the_examples_are_a_project_that_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "docs/examples")
    grid = {"models": ["bert_small"], "datasets": ["my_reviews"], "measurements": ["memory"]}
    grid["methods"] = ["norms_only", "full_sign_sgd"]
    plan = Plan(example_study(profile=[grid]), ROOT / "docs/examples", "study.yaml")
    assert [cell.method for cell in plan.cells("memory")] == ["norms_only", "full_sign_sgd"]


def test_the_examples_count_as_shapes_say(tmp_path: Path) -> None:
    """Trainable parameters and optimizer state on BERT-small, by hand."""
    shutil.copytree(ROOT / "docs/examples", tmp_path / "mine")
    code = """
from pathlib import Path
from rankwise.measure.memory.persistent import predict
from rankwise.study.plan import Plan
grid = {"models": ["bert_small"], "datasets": ["my_reviews"], "methods": ["norms_only", "full_sign_sgd"], "measurements": ["memory"]}
plan = Plan({"name": "examples", "question": "?", "device": "cpu", "profile": [grid]}, Path.cwd())
for cell in plan.cells("memory"):
    found = predict(plan.request("memory", cell))
    print(found["trainable_parameters"], found["optimizer_state_bytes"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "mine",
        env=CLEAN,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    width, layers, inner, words = 512, 4, 2048, 30522
    head = 2 * width + 2
    norms = (1 + 2 * layers) * 2 * width  # one after the embeddings, two a layer; weight and bias
    block = 4 * (width**2 + width) + 2 * width * inner + inner + width
    embeddings = (words + 512 + 2) * width
    everything = embeddings + norms + layers * block + width**2 + width + head  # with BERT's pooler
    (trained, _), (full, state) = [map(int, line.split()) for line in done.stdout.splitlines()]
    assert (trained, full, state) == (norms + head, everything, 4 * everything)


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path) -> None:
    """The dataset is prepared, the method and the optimizer train, in a repository of one's own."""
    shutil.copytree(ROOT / "docs/examples", tmp_path / "mine")
    mine = tmp_path / "mine"
    grid = {
        "models": ["tiny"],
        "datasets": ["my_reviews"],
        "methods": ["norms_only", "full_sign_sgd"],
        "seeds": [0],
    }
    study = example_study(train=[grid], schedule={"updates": 2, "batch_size": 4})
    (mine / "study.yaml").write_text(yaml.safe_dump(study))
    targets = [
        f"results/examples/runs/tiny/my_reviews/{name}/r0/seed0/train.json"
        for name in grid["methods"]
    ]
    done = run_snakemake(
        ROOT,
        *targets,
        "--directory",
        str(mine),
        "--configfile",
        str(mine / "study.yaml"),
        "--cores",
        "2",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for target in targets:
        assert json.loads(made(mine, target).read_text())["status"] == "ok"
