"""Facts about a machine, from files laid out as its system does."""

from pathlib import Path

import pytest

from rankwise.checks import machine


@pytest.mark.parametrize(("groups", "files", "limits"), [
    ("0::/jobs/one\n", {"memory.max": "max", "jobs/memory.max": "7000", "jobs/one/memory.max": "9000"}, [9000, 7000]),
    ("0::/inside/a/container\n", {"memory.max": "5000"}, [5000]),
    ("4:memory:/jobs\n1:cpu:/x\n", {"memory/jobs/memory.limit_in_bytes": "6000", "cpu/x/memory.max": "1"}, [6000]),
])  # fmt: skip
def test_limits_of_control_groups(
    tmp_path: Path, groups: str, files: dict[str, str], limits: list[int]
) -> None:
    for name, value in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    assert machine.limits(groups, tmp_path) == limits
