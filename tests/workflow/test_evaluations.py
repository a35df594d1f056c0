"""A new or edited evaluation asks kept weights and trains nothing: the real workflow's dry runs."""

import json
import re
from pathlib import Path

import pytest

from helpers.repository import copy_repository, edit, run_snakemake
from helpers.stored import finish
from rankwise.core.config import read_yaml
from rankwise.study import jobs
from rankwise.study.plan import Plan
from rankwise.study.settle import settle

pytestmark = pytest.mark.slow

FILE, ENTRIES = "config/asked.yaml", "config/evaluations.yaml"
STUDY = """
name: asked
question: What does LoRA keep of the right answers?
device: cpu
schedule: {updates: 4, batch_size: 8}
keep: merged
train: [{models: [tiny_decoder], datasets: [generated_prompts], methods: [lora], ranks: [2], seeds: [0, 1]}]
evaluate: [{tasks: [mine, small_arithmetic]}]
"""
ENTRY = """
%s:
  kind: harness
  task: %s
  files: {folder: %s, form: llm_adapters, test: {path: test.json}}
  metric: accuracy_fraction
"""
ROW = {
    "instruction": "Please choose the correct answer to the question: q\n\nAnswer1: a Answer2: b\n\n"
    "Answer format: answer1/answer2",
    "answer": "answer2",
}
TABLE = "results/asked/tables/evaluations.csv"
RUNS = {f"tiny_decoder/generated_prompts/lora/r2/seed{seed}" for seed in (0, 1)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which every result of the study is there."""
    folder = tmp_path_factory.mktemp("asked")
    root = copy_repository(folder / "clone")
    (folder / "test.json").write_text(json.dumps([ROW, ROW]))
    with (root / ENTRIES).open("a") as file:
        file.write(ENTRY % ("mine", "arc", folder))
        file.write(ENTRY % ("theirs", "openbookqa", folder))
    (root / FILE).write_text(STUDY)
    plan = Plan(read_yaml(root / FILE, FILE), root, FILE)
    settle(plan)
    for job in jobs.result_jobs(plan):
        finish(root, job)
    return root


def pending(root: Path) -> set[str]:
    """The jobs of a dry run: the rule, and of an evaluation also its cell without its digest."""
    done = run_snakemake(root, TABLE, "-n", "-p", "--configfile", FILE)
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.findall(
        r"^(?:local)?rule (\w+):\n(?:.*\n)*?    output: (\S+)", done.stdout, re.MULTILINE
    )
    return {
        f"{rule} {Path(path).parents[1].relative_to('results/asked/evaluations')}"
        if rule == "evaluate"
        else rule
        for rule, path in found
    }


def asks(name: str) -> set[str]:
    return {f"evaluate {run}/{name}" for run in RUNS}


def test_a_new_task_evaluates_the_weights_that_are_there(root: Path) -> None:
    assert pending(root) == {"collect"}
    edit(root / FILE, "tasks: [mine,", "tasks: [theirs, mine,")
    assert pending(root) == {"collect"} | asks("theirs")
    edit(root / FILE, "tasks: [theirs, mine,", "tasks: [mine,")


def test_an_edited_prompt_asks_that_task_again(root: Path) -> None:
    edit(root / "src/rankwise/evaluation/harness_tasks/arc.yaml", "Question: {{", "Q: {{")
    assert pending(root) == {"collect"} | asks("mine")
