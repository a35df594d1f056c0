"""The page of mistakes: run each example, and compare the sentence shown with the sentence said.

    python docs/generate/mistakes.py        # writes the sentences into docs/mistakes.md anew

A mistake is a heading, a `yaml` block and a `text` block. The YAML is a study. Below a comment with
the name of a file of entries stands an entry that is added to that file, and a study below its own
name; what such a study's jobs would lack is looked at, too. Files of data are those of
docs/examples/data; models are the folders that `small_models` writes into `models/`.
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
SHOWN = ("files", "rows", "models")  # kinds of what jobs may lack
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

    parts = _parts(mistake.given)
    before = {}
    for name, text in parts.items():
        file = root / name
        before[file] = file.read_text(encoding="utf-8") if file.exists() else None
        file.write_text((before[file] or "") + text, encoding="utf-8")
    study = root / (STUDY if STUDY in parts else "config/demo.yaml")
    try:
        plan = Plan(read_yaml(study, STUDY), root, STUDY)
        return _lacking(plan) if STUDY in parts else _of_models(parts.get(MODELS, ""), plan)
    except ConfigError as error:
        return str(error)
    finally:
        for file, text in before.items():
            if text is None:
                file.unlink()
            else:
                file.write_text(text, encoding="utf-8")


def _parts(given: str) -> dict[str, str]:
    """File of the copy -> what the example adds to it."""
    headed = given if given.startswith("# config/") else f"# {STUDY}\n{given}"
    _, *pieces = re.split(r"^# (config/\w+\.yaml)\n", headed, flags=re.MULTILINE)
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


def _lacking(plan: "Plan") -> str:
    """What jobs of a study would lack, of what files of this machine show."""
    from rankwise.checks import preflight  # noqa: PLC0415 - needs src on the path
    from rankwise.study.jobs import result_jobs  # noqa: PLC0415

    jobs = list(result_jobs(plan))
    with contextlib.chdir(plan.root):
        said = [line for kind in SHOWN for line in preflight.lacking(kind, jobs, plan)]
    return "\n".join(said)


def _of_models(given: str, plan: "Plan") -> str:
    """What is said of the entries of models in an example, before a job that would use them."""
    from rankwise.checks import model_entries  # noqa: PLC0415
    from rankwise.data import sources  # noqa: PLC0415

    said = []
    with contextlib.chdir(plan.root):
        for name in yaml.safe_load(given) or {}:
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
