"""What is wrong with a file behind `--configfile` is one sentence, and Snakemake never reads it."""

from pathlib import Path

import pytest

from helpers.repository import run_snakemake
from rankwise.checks import configfiles
from rankwise.core.errors import ConfigError

GOOD, TWICE = "name: x\ndevice: cpu\n", "device: cpu\ndevice: cuda\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text(GOOD)
    Path("twice.yaml").write_text(TWICE)
    Path("good.json").write_text('{\n\t"name": "x"\n}')  # YAML takes no tab here
    Path("list.yaml").write_text("- name\n")
    return tmp_path


@pytest.mark.parametrize("words", [
    "-n",
    "--configfile good.yaml",
    "--configfiles good.yaml good.json",
    "--configfile=good.yaml missing.yaml",  # a target
    "--config device=cuda twice.yaml",  # another option
    "missing.yaml -n",
])  # fmt: skip
def test_good_files_and_other_words_pass(words: str, folder: Path) -> None:
    configfiles.check(words.split())


@pytest.mark.parametrize(("words", "message"), [
    ("--configfile twice.yaml", "twice.yaml: line 2, column 1: got 'device: cuda'"),
    ("-n --configfile=twice.yaml", "twice.yaml: line 2"),
    ("--configfil twice.yaml --cores 1", "twice.yaml: line 2"),
    ("--configfiles good.yaml twice.yaml", "twice.yaml: line 2"),
    ("--configfile god.yaml", "god.yaml: file: got 'nothing', allowed: a YAML file (nearest: good.yaml)"),
    ("--configfile good.yaml results/report.html", "got 'results/report.html', allowed: a YAML file; write targets in front"),
    ("--configfile list.yaml", "list.yaml: top level: got ['name'], allowed: a mapping"),
])  # fmt: skip
def test_a_bad_file_is_one_sentence(words: str, message: str, folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        configfiles.check(words.split())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_snakemake_says_it_without_a_traceback(clone: Path) -> None:
    (clone / "config/twice.yaml").write_text(TWICE)
    for file, sentence in (
        ("config/demoo.yaml", "config/demoo.yaml: file: got 'nothing', allowed: a YAML file"),
        ("config/twice.yaml", "config/twice.yaml: line 2, column 1: got 'device: cuda'"),
    ):
        done = run_snakemake(clone, "-n", "--configfile", file)
        assert done.returncode == 1
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
