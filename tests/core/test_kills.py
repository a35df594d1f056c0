"""What is said of a killed process follows from the kernel's counts of processes that it killed."""

from pathlib import Path

import pytest

from rankwise.core import kills

MEMORY = "host memory ran out"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel that has killed 3 processes of the machine and 1 of this group, and has no log."""
    monkeypatch.setattr(kills, "VMSTAT", tmp_path / "vmstat")
    monkeypatch.setattr(kills, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(kills, "CGROUP", tmp_path / "groups")
    monkeypatch.setattr(kills, "KERNEL_LOG", tmp_path / "kmsg")
    (tmp_path / "vmstat").write_text("nr_free_pages 12\noom_kill 3\n")
    (tmp_path / "cgroup").write_text("0::/job/step\n")
    group = tmp_path / "groups/job/step"
    group.mkdir(parents=True)
    (group / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    return tmp_path


def test_both_versions_of_control_groups_are_read(kernel: Path) -> None:
    assert kills.counts() == {"machine": 3, "group": 1}
    (kernel / "cgroup").write_text("3:cpu,cpuacct:/a\n4:memory:/b\n0::/\n")
    first = kernel / "groups/memory/b"
    first.mkdir(parents=True)
    (first / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    assert kills.counts() == {"machine": 3, "group": 5}


def test_a_count_that_rose_is_the_cause(kernel: Path) -> None:
    before = kills.counts()
    line = kills.sentence(kills.SIGKILL_SEEN, 17, 3 * 2**29, before)
    assert line.startswith("ended by SIGKILL; peak of its resident memory: 1.50 GiB; ")
    assert "has ended no process since it began: another process sent the signal" in line
    (kernel / "vmstat").write_text("oom_kill 4\n")
    assert kills.sentence(kills.SIGKILL_SEEN, 17, None, before).endswith(MEMORY)


def test_the_kernels_log_names_the_process(kernel: Path) -> None:
    (kernel / "kmsg").write_text("4,1,1,-;Out of memory: Killed process 17 (python) total-vm:1kB\n")
    before = kills.counts()
    assert "its OOM killer ended it" in kills.sentence(kills.GONE, 17, None, before)
    assert MEMORY not in kills.sentence(kills.GONE, 1, None, before)


def test_without_counts_the_line_says_so(kernel: Path) -> None:
    (kernel / "vmstat").unlink()
    (kernel / "cgroup").unlink()
    line = kills.sentence(kills.GONE, 17, None, kills.counts())
    assert line.endswith("sends it when host memory runs out, and does not say if it did")


def test_the_peak_is_at_least_what_was_just_used() -> None:
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    assert 64 * 2**20 < kills.peak_bytes() < 2**40
