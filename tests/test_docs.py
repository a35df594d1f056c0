"""What the pages say is so: numbers come from files, files are there, and the example of a method works as it stands."""

import re
import subprocess
import sys
from pathlib import Path

from conftest import CLEAN, ROOT, edit

README = (ROOT / "README.md").read_text()


def test_measured_blocks_are_the_files_that_they_name() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from publish import fill

    assert fill(README) == README
    assert re.search(r"<!-- begin benchmarks/laptop/summary.md -->\n\n\| model", README)


def test_the_page_of_methods_is_what_the_command_prints() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rankwise.cli", "methods", "--page"], cwd=ROOT, env=CLEAN, capture_output=True, text=True
    )
    assert done.stdout == (ROOT / "docs/methods.md").read_text(), f"run `make docs`; {done.stderr[-500:]}"


def test_files_named_are_there() -> None:
    for name in re.findall(r"\]\(([\w/.]+)\)|`((?:config|benchmarks|tests|envs)/[\w/.]+\.\w+)`", README):
        assert (ROOT / (name[0] or name[1])).is_file(), name


def test_the_example_of_a_method_works_as_it_stands(clone: Path) -> None:
    """Its file and its entry, and nothing else, make a new curve: here its trainable parameters on DistilBERT."""
    source = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    entry = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1]
    source = "\n".join(line.removeprefix("   ") for line in source.splitlines())
    head = "from dataclasses import dataclass\n\nfrom torch import nn\n\nfrom rankwise.method import Method, train_only\n\n\n"
    (clone / "src/rankwise/methods/norms_only.py").write_text(head + source + "\n")
    methods = clone / "config/methods.yaml"
    methods.write_text(methods.read_text() + entry.strip() + "\n")
    edit(
        clone / "config/demo.yaml",
        "methods: [full, lora, rsvd]\n    ranks: [4, 8",
        "methods: [full, norms_only, rsvd]\n    ranks: [4, 8",
    )
    code = """
import yaml
from pathlib import Path
from rankwise.measure.memory import predict
from rankwise.plan import Cell, Plan
plan = Plan(yaml.safe_load(Path("config/demo.yaml").read_text()), Path.cwd())
print(predict(plan.request("memory", Cell("distilbert", "sst2", "norms_only", 0)))["trainable_parameters"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=clone, env={**CLEAN, "PYTHONPATH": "src"}, capture_output=True, text=True
    )
    norms = (1 + 6 * 2) * 2 * 768  # the embeddings' and two a layer, weight and bias each
    assert done.stdout.strip() == str(norms + 592_130), done.stderr
