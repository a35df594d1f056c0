"""The page of mistakes: run each example, and compare the sentence shown with the sentence said.

    python docs/generate/mistakes.py        # writes the sentences into docs/mistakes.md anew

A mistake is a heading, a `yaml` block and a `text` block. The YAML is a study. Where its first line
is a comment with the name of a file of entries, it is an entry that is added to that file. Files of
data are those of docs/examples/data; models are the folders that `small_models` writes into
`models/`.
"""

import contextlib
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

try:
    from generate import small_models
except ImportError:  # run as a program
    import small_models

if TYPE_CHECKING:
    from rankwise.study.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/mistakes.md"
STUDY, MODELS = "config/mine.yaml", "config/models.yaml"
MISTAKE = re.compile(
    r"^## (?P<title>.+?)\n.*?^```yaml\n(?P<given>.*?)^```\n.*?^```text\n(?P<said>.*?)^```\n",
    re.MULTILINE | re.DOTALL,
)
COPIED = (
    "config", "envs", "src", "workflow_scripts", "rules", "profiles", "Snakefile", "pyproject.toml",
)  # fmt: skip


class Mistake(NamedTuple):
    """One example of the page."""

    title: str
    given: str  # YAML
    said: str  # the sentence that the page shows


def read(text: str) -> list[Mistake]:
    """The examples of a page."""
    return [Mistake(**match.groupdict()) for match in MISTAKE.finditer(text)]


def copy(folder: Path) -> Path:
    """A small copy of the repository, with all that planning reads."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy(source, folder / name)
    small_models.write(folder / "models")
    shutil.copytree(ROOT / "docs/examples/data", folder / "data")
    return folder


def run(mistake: Mistake, root: Path) -> str:
    """What planning says about the example, or nothing. `root` is a copy, and is left as it was."""
    from rankwise.core.config import ConfigError, read_yaml  # noqa: PLC0415 - needs src on the path
    from rankwise.study.plan import Plan  # noqa: PLC0415

    entries = re.match(r"# (config/\w+\.yaml)\n", mistake.given)
    file = root / (entries[1] if entries else STUDY)
    before = file.read_text(encoding="utf-8") if file.exists() else None
    file.write_text((before or "") + mistake.given, encoding="utf-8")
    study = root / ("config/demo.yaml" if entries else STUDY)
    try:
        plan = Plan(read_yaml(study, STUDY), root, STUDY)
        return _of_models(mistake, plan) if entries and entries[1] == MODELS else ""
    except ConfigError as error:
        return str(error)
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_text(before, encoding="utf-8")


def _of_models(mistake: Mistake, plan: "Plan") -> str:
    """What is said of the entries of models in an example, before a job that would use them."""
    from rankwise.checks import model_entries  # noqa: PLC0415
    from rankwise.data import sources  # noqa: PLC0415

    said = []
    with contextlib.chdir(plan.root):
        for name in yaml.safe_load(mistake.given):
            said += sources.missing("files", "model", name, plan)
            entry = plan.library["models"][name]
            said += model_entries.problems(name, entry, tasks=entry["head"])
    return "\n".join(said)


def main() -> None:
    """Write the sentences into the page anew."""
    sys.path.insert(0, str(ROOT / "src"))
    text = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        root = copy(Path(folder))
        for mistake in read(text):
            block = f"```yaml\n{mistake.given}```\n\n```text\n"
            new = f"{block}{run(mistake, root)}\n```\n"
            text = text.replace(f"{block}{mistake.said}```\n", new)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
