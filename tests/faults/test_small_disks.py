"""Full and read-only disks under each place that jobs write to."""

import os
import sys

import pytest

from faults import clone, small_disks
from faults.small_disks import PLACES, Tried

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="only root on Linux may mount"
    ),
]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> list[Tried]:
    return small_disks.try_all(clone.make_clone(tmp_path_factory.mktemp("small") / "clone"))


def test_every_place_is_tried(tried: list[Tried]) -> None:
    assert [(one.state, one.place) for one in tried] == [
        (state, place)
        for state in ("full", "read-only")
        for place in ("preparation", "result", "checkpoint", "figure")
    ]


def test_the_disk_is_said_in_a_sentence(tried: list[Tried]) -> None:
    """A sentence names the place and the reason; a training without checkpoints goes on."""
    for one in tried:
        assert one.ended_well == (one.place == "checkpoint"), one
        place = str(PLACES[one.place])
        assert [line for line in one.sentences if place in line or one.place in line], one
        assert not [line for line in one.sentences if line.startswith("OSError")], one


def test_nothing_is_lost(tried: list[Tried]) -> None:
    assert [one for one in tried if one.lost or one.unequal or one.left] == []
