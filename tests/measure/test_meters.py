"""Other processes on the cores, and energy, from files that stand in for the kernel's."""

from pathlib import Path

import pytest

from rankwise.measure.speed import meters
from rankwise.measure.speed.meters import Watch


def write_ticks(path: Path, user: int, idle: int) -> None:
    """A /proc/stat with the same ticks on every core."""
    lines = ["cpu  1 2 3 4"]
    lines += [f"cpu{core} {user} 0 0 {idle} 0 0 0 0 0 0" for core in range(512)]
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(("used_s", "taints"), [(90, True), (10, False)])
def test_busy_cores_taint(
    used_s: int, taints: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 seconds pass, of which others use so many."""
    monkeypatch.setattr(meters, "STAT", tmp_path / "stat")
    write_ticks(tmp_path / "stat", 1000, 5000)
    with Watch("cpu") as watch:
        write_ticks(tmp_path / "stat", 1000 + 10 * used_s, 5000 + 10 * (100 - used_s))
    assert watch.other_cpu() == pytest.approx(used_s / 100, abs=0.02)
    assert ("other processes used over 20 % of the cores" in watch.taint()) == taints


def test_nothing_to_read_is_no_taint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "STAT", tmp_path / "absent")
    monkeypatch.setattr(meters, "POWERCAP", tmp_path / "absent")
    with Watch("cpu") as watch:
        pass
    assert (watch.other_cpu(), watch.energy()) == (None, None)


def test_rapl_counts_every_package_across_its_wrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """package-0 goes from 900 over its wrap at 1000 to 100, package-1 from 100 to 150."""
    for number, (name, used) in enumerate([("package-0", 900), ("package-1", 100), ("dram", 5)]):
        folder = tmp_path / f"intel-rapl:{number}"
        folder.mkdir()
        for file, text in (("name", name), ("energy_uj", used), ("max_energy_range_uj", 1000)):
            (folder / file).write_text(f"{text}\n")
    monkeypatch.setattr(meters, "POWERCAP", tmp_path)
    with Watch("cpu") as watch:
        (tmp_path / "intel-rapl:0/energy_uj").write_text("100\n")
        (tmp_path / "intel-rapl:1/energy_uj").write_text("150\n")
    joules, meter = watch.energy()
    assert joules == pytest.approx(250e-6)
    assert meter.startswith("rapl:package-0+package-1")
