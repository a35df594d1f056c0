"""What the terminal says of a sweep in which two cells crash, one diverges, and three are to come.

    python benchmarks/partial.py

Runs the sweep of benchmarks/partial in a copy of this repository and writes what the terminal shows
to benchmarks/partial/*.md, for docs/running/partial.md. It takes some minutes on two CPU cores.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = ROOT / "benchmarks/partial"
STUDY = "config/sweep.yaml"
COPIED = ("src", "rules", "workflow_scripts", "config", "profiles", "envs", "docker")
FIRST_LINE = "rule "  # of what is shown: the first job
MACHINES_OWN = ("Complete log(s): ", "Elapsed time: ")  # lines that are left out


def prepare(project: Path) -> None:
    """Add the sweep, without the grids that are added later, and its methods to a clone."""
    shutil.copyfile(FILES / "sweep.yaml", project / STUDY)
    shutil.copytree(FILES / "methods", project / "methods", dirs_exist_ok=True)
    with (project / "config/methods.yaml").open("a", encoding="utf-8") as entries:
        entries.write((FILES / "methods.yaml").read_text(encoding="utf-8"))


def add_grids(project: Path) -> None:
    """Add the grids that the sweep has after its first run."""
    file = project / STUDY
    study = yaml.safe_load(file.read_text(encoding="utf-8"))
    added = yaml.safe_load((FILES / "added.yaml").read_text(encoding="utf-8"))
    for kind, grids in added.items():
        study[kind] += grids
    file.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")


def main() -> None:
    """Run the sweep, and write what is shown."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        for name in COPIED:
            shutil.copytree(ROOT / name, project / name, dirs_exist_ok=True)
        for name in ("Snakefile", "pyproject.toml"):
            shutil.copyfile(ROOT / name, project / name)
        prepare(project)
        shown(project, "sweep", "snakemake", "--configfile", STUDY)
        add_grids(project)
        shown(project, "report", "rankwise", "report", "--partial", "--study", STUDY)


def shown(project: Path, name: str, *command: str) -> None:
    """Run a command, and write it with what it prints to benchmarks/partial/{name}.md."""
    program = Path(sys.executable).with_name(command[0])
    words = [sys.executable, "-c", RUN, *command[1:]] if command[0] == "rankwise" else None
    done = subprocess.run(
        words or [program, *command[1:]],
        cwd=project,
        env={"PATH": f"{program.parent}:/usr/bin:/bin", "PYTHONPATH": str(project / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if not line.startswith(MACHINES_OWN)]
    starts = [number for number, line in enumerate(lines) if FIRST_LINE in line]
    text = "\n".join([f"$ {' '.join(command)}", *lines[starts[0] if starts else 0 :]])
    (FILES / f"{name}.md").write_text(f"```text\n{text}\n```\n", encoding="utf-8")


# `rankwise` of the copy, not the installed one.
RUN = "import sys; from rankwise.cli.main import main; sys.exit(main())"

if __name__ == "__main__":
    main()
