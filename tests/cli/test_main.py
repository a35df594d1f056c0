"""The command `rankwise`, as typed."""

import subprocess
import sys

import pytest

from helpers.repository import CLEAN, ROOT


def rankwise(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "rankwise.cli.main", *arguments]
    return subprocess.run(command, cwd=ROOT, env=CLEAN, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_fits_prints_what_it_assumed_and_a_row_a_method() -> None:
    done = rankwise(
        *("fits", "--model", "stories260k", "--memory", "16MiB", "--methods", "full", "lora"),
        *("--device", "cpu", "--length", "64"),
    )
    assert done.returncode == 0, done.stderr
    assumed, _, head, *rows = done.stdout.splitlines()
    assert assumed.startswith(
        "stories260k: language_modelling, head lm_head, vocabulary 512; others: --task classification"
    )
    columns = "method rank length batch in 0.015625 GiB longest in 0.015625 GiB"
    assert " ".join(head.split()) == columns
    assert [row.split()[0] for row in rows] == ["full", "lora"]
    batches = [int(row.split()[-2]) for row in rows]
    assert 0 < batches[0] < batches[1]  # full keeps gradients and two moments of every weight


@pytest.mark.parametrize("size", ["much", "1.2.3GiB"])
def test_a_size_that_is_none_is_one_sentence(size: str) -> None:
    done = rankwise("fits", "--memory", size)
    assert done.returncode != 0
    assert f"got '{size}', allowed: a size such as 24GiB, 24GB, 512MiB" in done.stderr
    assert "Traceback" not in done.stderr
