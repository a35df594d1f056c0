"""Damaged files: a job refuses them in a sentence, and Snakemake heals the study."""

import random
from collections import Counter
from pathlib import Path

import pytest

from faults import damage
from faults.damage import FLIP, TRUNCATION, Damage
from faults.strikes import Undisturbed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Undisturbed]:
    """A clone with all results of the study."""
    return damage.finished_clone(tmp_path_factory.mktemp("damaged") / "clone")


@pytest.fixture(scope="module")
def damages(study: tuple[Path, Undisturbed]) -> list[Damage]:
    planned = damage.planned(damage.TRUNCATIONS, damage.FLIPS)
    return damage.damage_all(study[0], planned, random.Random(damage.SEED))


def test_every_target_is_damaged_in_both_ways(damages: list[Damage]) -> None:
    counts = Counter((one.target, one.kind) for one in damages)
    assert {target for target, _ in counts} == {
        "checkpoint",
        "result",
        "split",
        "weights",
        "tokenizer",
        "table",
    }
    assert {count for (_, kind), count in counts.items() if kind == TRUNCATION} == {20}
    assert {count for (_, kind), count in counts.items() if kind == FLIP} == {30}


@pytest.mark.parametrize("target", damage.TARGETS)
def test_damage_is_said_or_harmless(target: str, damages: list[Damage]) -> None:
    """A sentence names the file, or the job's answer is the undisturbed one."""
    mine = [one for one in damages if one.target == target]
    assert [one for one in mine if one.answer not in ("refused", "began anew", "equal")] == []
    assert [one for one in mine if one.answer in ("refused", "began anew")], "some is said"


@pytest.mark.parametrize("kind", [FLIP, TRUNCATION])
def test_a_rerun_heals(kind: str, study: tuple[Path, Undisturbed], damages: list[Damage]) -> None:
    """One file of each target is damaged at once.

    A job sets aside the first damaged input that it finds, so that the next run makes it anew. Two
    inputs are damaged: the model and the dataset.
    """
    healed = damage.heal(*study, kind, random.Random(damage.SEED))
    assert healed.unequal == []
    assert healed.runs in (1, 2, 3), healed.said
