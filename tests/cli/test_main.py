"""The command `rankwise`, as typed."""

import subprocess
import sys

import pytest

from helpers.repository import CLEAN, ROOT


def rankwise(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "rankwise.cli.main", *arguments]
    return subprocess.run(command, cwd=ROOT, env=CLEAN, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_fits_prints_a_row_a_method() -> None:
    done = rankwise(
        "fits",
        "--model",
        "stories260k",
        "--memory",
        "16MiB",
        "--methods",
        "full",
        "lora",
        "--device",
        "cpu",
        "--length",
        "64",
    )
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == [
        "method",
        "rank",
        "length",
        "batch",
        "in",
        "0.015625",
        "GiB",
        "longest",
        "in",
        "0.015625",
        "GiB",
    ]
    assert [row.split()[0] for row in rows] == ["full", "lora"]
    batches = [int(row.split()[-2]) for row in rows]
    assert 0 < batches[0] < batches[1]  # full keeps gradients and two moments of every weight


@pytest.mark.parametrize(("arguments", "message"), [
    (["--model", "lama", "--memory", "1GiB"], "config/models.yaml: model: got 'lama', allowed: "),
    (["--memory", "much"], "got 'much', allowed: a size such as 24GiB, 24GB, 512MiB"),
    (["--memory", "1GiB", "--length", "4096"], "lengths_tokens: got 4096, allowed: at most 512, the positions of distilbert"),
    (["--memory", "1GiB", "--methods", "loora"], "got 'loora', allowed: "),
])  # fmt: skip
def test_nonsense_is_one_sentence(arguments: list[str], message: str) -> None:
    done = rankwise("fits", *arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
