"""The command `rankwise init`: a repository of one's own that uses this workflow as a module."""

import argparse
import sys
from importlib import metadata
from pathlib import Path

from rankwise.cli import study_template
from rankwise.cli.study_template import NewStudy, study_text
from rankwise.core import paths
from rankwise.core.entry_files import HEADS, write_whole

STUDY = "config/mine.yaml"
SNAKEFILE = '''"""Studies of this repository. The module Rankwise is found where it is installed."""

from rankwise.core import paths


if "question" not in config:  # no --configfile, which would be merged with this one

    configfile: "config/mine.yaml"


module rankwise:
    snakefile:
        str(paths.WORKFLOW / "Snakefile")
    config:
        config


use rule * from rankwise
'''
README = """# {title}

A study of efficient fine-tuning methods, made with Rankwise.

## Run it

```
pip install -r requirements.txt
snakemake -n                                   # what would run, and why
rankwise plan --study config/mine.yaml         # the same, with its cost
snakemake                                      # then open results/mine/report.html
```

## Your own model, data and study

```
rankwise add model PATH      # an entry in config/models.yaml, derived from the model
rankwise add dataset FILE    # an entry in config/datasets.yaml, proposed from the file
rankwise add study --model M --dataset D --name N
snakemake --configfile config/N.yaml
```

## What is where

| folder | holds |
| --- | --- |
| `config/` | studies, and entries of models, datasets and methods |
| `methods/` | your methods, one file each |
| `optim/` | your optimizers, one file each |
| `results/` | what Snakemake writes; not in git |
"""
FOLDER_READMES = {
    "methods": "A method is one file here, and an entry in `config/methods.yaml`: see "
    "docs/extend/method.md of Rankwise. Test it: `rankwise test method NAME`.\n",
    "optim": "An optimizer is one file here, and is named by entries in `config/methods.yaml`: "
    "see docs/extend/optimizer.md of Rankwise.\n",
}
IGNORED = "results/\nlogs/\n.snakemake/\n.venv/\n__pycache__/\n"
METHODS = "# Methods of your own. They stand beside Rankwise's own entries.\n"
# A list of shell words; an entry's name has no white space.
NAMES = "import yaml; print(*(yaml.safe_load(open('config/methods.yaml')) or []))"
CI = f"""name: study
on: [push, pull_request]
jobs:
  plan:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "{{python}}"
      - run: pip install --extra-index-url https://download.pytorch.org/whl/cpu -r requirements.txt
      - name: Every study plans
        run: |
          for study in $(grep -l '^question:' config/*.yaml); do
            rankwise plan --study "$study"
          done
      - name: Methods of this repository keep what every method promises
        run: |
          for name in $(python -c "{NAMES}"); do
            rankwise test method "$name"
          done
"""


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `rankwise init` to the command line."""
    command = commands.add_parser(
        "init", help="make a repository of your own that uses this workflow as a module"
    )
    command.add_argument("folder", metavar="DIR", help="a folder that is empty or not there")
    command.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> tuple[str, int]:
    folder = Path(given.folder)
    files = make(folder)
    listed = "\n".join(f"  {name}" for name in files)
    return f"{folder}:\n{listed}\nnext: cd {folder} && snakemake -n", 0


def make(folder: Path) -> list[str]:
    """Write the files of a repository into a folder.

    Args:
        folder: It is made if it is not there.

    Returns:
        The files, relative to the folder.

    Raises:
        ValueError: It is no folder, or has something in it; nothing is written then.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: got a file, allowed: a folder that is empty or not there")
    if folder.is_dir():
        inside = sorted(path.name for path in folder.iterdir())
        if inside:
            more = f" and {len(inside) - 3} more" if len(inside) > 3 else ""
            raise ValueError(
                f"{folder}: got a folder with {', '.join(inside[:3])}{more}, allowed: a folder "
                "that is empty or not there"
            )
    title = folder.resolve().name
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    files = {
        "Snakefile": SNAKEFILE,
        "README.md": README.format(title=title),
        "requirements.txt": _requirements(),
        "profiles/default/profile.yaml": _profile(),
        ".gitignore": IGNORED,
        ".github/workflows/study.yaml": CI.format(python=python),
        STUDY: study_text(
            NewStudy(
                "mine", "tiny", "generated_reviews", "cpu", list(study_template.METHODS), [0, 1, 2]
            )
        ),
        "config/models.yaml": HEADS["models"],
        "config/datasets.yaml": HEADS["datasets"],
        "config/methods.yaml": METHODS,
        **{f"{name}/README.md": text for name, text in FOLDER_READMES.items()},
    }
    for name, text in files.items():
        write_whole(folder / name, text)
    return sorted(files)


def _profile() -> str:
    """The workflow's default profile, without the line that is for a clone alone."""
    file = paths.WORKFLOW / "profiles/default/profile.yaml"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if "sys.path" not in line)


def _requirements() -> str:
    """The software that a machine needs to run the studies."""
    try:
        version = metadata.version("rankwise")
    except metadata.PackageNotFoundError:  # the container runs a clone
        version = ""
    pin = f"=={version}" if version else ""
    return (
        "# From an index of packages; or write a clone's folder, or git+https://... of one:\n"
        "# rankwise[workflow] @ git+https://HOST/OWNER/rankwise@COMMIT\n"
        f"rankwise[workflow]{pin}\n"
    )
