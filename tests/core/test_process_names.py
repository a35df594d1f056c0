"""A process is told from every later one with its number."""

import re
import subprocess
from pathlib import Path

import pytest

from rankwise.core import process_names


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_a_process_is_alive_until_it_ends(sleeper: subprocess.Popen) -> None:
    name = process_names.name(sleeper.pid)
    assert process_names.is_alive(name) is True
    sleeper.kill()
    while "Z" not in Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(")")[2].split():
        pass
    assert process_names.is_alive(name) is False, "it has ended, although nobody has noticed"
    sleeper.wait()
    assert process_names.is_alive(name) is False


def test_another_process_of_the_same_number_is_another(sleeper: subprocess.Popen) -> None:
    name = process_names.name(sleeper.pid)
    assert process_names.is_alive(re.sub(r"\d+$", "17", name)) is False  # it started earlier
    restarted = re.sub(r"\.[0-9a-f]{8}\.", ".00000000.", name)
    assert restarted != name
    assert process_names.is_alive(restarted) is False  # before the machine was restarted


def test_of_other_machines_and_containers_nothing_is_known(sleeper: subprocess.Popen) -> None:
    name = process_names.name(sleeper.pid)
    assert process_names.is_alive(f"far-{name.rpartition('-')[2]}") is None
    host, _, rest = name.rpartition("-")
    pid, boot, _, start = rest.split(".")
    assert process_names.is_alive(f"{host}-{pid}.{boot}.1.{start}") is None
    assert process_names.is_alive("notes.txt") is None


def test_a_name_may_follow_other_text(sleeper: subprocess.Popen) -> None:
    name = f".part-runs-1.csv-{process_names.name(sleeper.pid)}"
    assert process_names.is_alive(name) is True
