"""Every command that README and docs show names targets, options and files that exist."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from helpers.doc_blocks import commands
from helpers.repository import ROOT, run_snakemake
from rankwise.cli import main
from rankwise.study.jobs import targets
from rankwise.study.plan import Plan

PLACEHOLDERS = ("STUDY.yaml", "FILE", "config/mine.yaml", "../my_study/config/mine.yaml")
SHOWN = sorted({(page, tuple(words)) for page, words in commands()})


def of(*programs: str) -> list[tuple[str, tuple[str, ...]]]:
    """The commands shown of some programs, with the path of .venv left out."""
    named = [(page, (words[0].removeprefix(".venv/bin/"), *words[1:])) for page, words in SHOWN]
    return [(page, words) for page, words in named if words[0] in programs]


def test_every_program_shown_is_known() -> None:
    known = {
        "git",
        "cd",
        "make",
        "snakemake",
        "rankwise",
        "pytest",
        "python",
        "pip",
        "docker",
        "podman",
    }
    known |= {"apptainer", "mkdir", "docker/build.sh", "mkdocs"}
    assert {words[0].removeprefix(".venv/bin/") for _, words in SHOWN} <= known


@pytest.mark.parametrize(("page", "words"), of("make"))
def test_make_targets_exist(page: str, words: tuple[str, ...]) -> None:
    targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(words[1:]) <= set(targets), page


@pytest.mark.parametrize(("page", "words"), of("rankwise"))
def test_rankwise_takes_the_options_shown(page: str, words: tuple[str, ...]) -> None:
    given = list(words[1:])
    if given == ["fits"]:
        given += ["--memory", "24GiB"]
    main.parser().parse_args(given)  # ends the process where it does not
    study = given[given.index("--study") + 1] if "--study" in given else PLACEHOLDERS[0]
    assert study in PLACEHOLDERS or (ROOT / study).is_file(), page


def options(words: tuple[str, ...]):
    """A snakemake command as Snakemake's own parser reads it."""
    from snakemake.cli import get_argument_parser

    return get_argument_parser().parse_args([word for word in words[1:] if word != "..."])


@cache
def plan(study: str) -> Plan:
    return Plan(yaml.safe_load((ROOT / study).read_text()), ROOT, study)


@pytest.mark.parametrize(("page", "words"), of("snakemake"))
def test_snakemake_targets_exist(page: str, words: tuple[str, ...]) -> None:
    given = options(words)
    for profile in given.profile or []:
        assert (ROOT / profile / "profile.yaml").is_file(), page
    study = str(next(iter(given.configfile or []), "config/config.yaml"))
    own = "results/mine/"  # the files of a study of one's own are those of the paper study
    given.targets = [target.replace(own, "results/") for target in given.targets]
    study = "config/config.yaml" if study in PLACEHOLDERS else study
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    for target in given.targets:
        named = re.search(rf"^rule {re.escape(target)}:", rules, re.MULTILINE)
        assert target == "TARGET" or named or target in targets(plan(study)), (page, target)


@pytest.mark.parametrize(("page", "words"), of("python", "pytest", "docker/build.sh"))
def test_scripts_and_tests_shown_exist(page: str, words: tuple[str, ...]) -> None:
    files = [word for word in words if re.fullmatch(r"[\w./-]+\.(py|sh)", word)]
    assert [file for file in files if not (ROOT / file).is_file()] == [], page


def can_plan(words: tuple[str, ...]) -> bool:
    """Whether a command names what is here, and more than how many jobs run at once."""
    given = options(words)
    elsewhere = {"--profile", "--directory", "TARGET", *PLACEHOLDERS} & set(words)
    return not elsewhere and bool(given.targets or given.configfile)


def planned_together() -> list[tuple[str, ...]]:
    """The commands shown, as few: targets under the same settings are planned by one command.

    A command without a target, which plans a whole study, stays apart.
    """
    targets_by_settings: dict[tuple, dict[str, None]] = {}
    for words in sorted({words for _, words in of("snakemake") if can_plan(words)}):
        targets_shown = options(words).targets
        settings = [word for word in words[1:] if word not in targets_shown]
        if "--cores" in settings:  # how many jobs run at once is no part of a plan
            place = settings.index("--cores")
            del settings[place : place + 2]
        key = bool(targets_shown), *settings
        targets_by_settings.setdefault(key, {}).update(dict.fromkeys(targets_shown))
    return [(*named, *key[1:]) for key, named in targets_by_settings.items()]


@pytest.mark.slow
@pytest.mark.parametrize("words", planned_together(), ids=" ".join)
def test_snakemake_plans_the_commands_shown(words: tuple[str, ...], clone: Path) -> None:
    """A dry run of each. Data and GPUs are looked at before the first job, and so not here."""
    done = run_snakemake(clone, *words, "-n", RANKWISE_DATA="/data")
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_command_line_is_there() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rankwise.cli.main", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "rankwise" in done.stdout


@pytest.mark.slow
def test_the_snakefile_shown_uses_the_workflow_as_a_module(tmp_path: Path) -> None:
    (tmp_path / "rankwise").symlink_to(ROOT)
    mine = tmp_path / "my_study"
    (mine / "config").mkdir(parents=True)
    study = re.search(r"```yaml\n(name: .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    (mine / "config/mine.yaml").write_text(study)
    shown = ROOT / "docs/examples/module/Snakefile"
    (mine / "Snakefile").write_text(shown.read_text())
    done = run_snakemake(mine, "-n", "--cores", "1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(
        r"^train +9$", done.stdout + done.stderr, re.MULTILINE
    )  # full, lora r2 and r8; 3 seeds


@pytest.mark.slow
def test_the_workflow_catalogs_snakefile_plans_the_study() -> None:
    done = run_snakemake(
        ROOT,
        "-n",
        "--forceall",
        "--cores",
        "1",
        "--snakefile",
        "workflow/Snakefile",
        "--configfile",
        "config/demo.yaml",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "report_of_the_study" in done.stdout + done.stderr
