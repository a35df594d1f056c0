"""A training step and a reload of one entry of each kind on small models of nine architectures.

All entries are tested on two of them: a decoder that predicts tokens, and an encoder that classifies.
"""

import pytest
import torch
import yaml

from helpers.architectures import ARCHITECTURES, UNSUPPORTED, request
from helpers.conformance import NEEDS, one_of_each_kind
from helpers.repository import ROOT
from rankwise.core.errors import Unsupported
from rankwise.measure.conformance.cases import Case, logits
from rankwise.models import storage

METHODS = yaml.safe_load((ROOT / "config/methods.yaml").read_text())
KINDS = one_of_each_kind(METHODS)
ON_EVERY_ARCHITECTURE = ("full", "lora")
HAVE_EVERY_ENTRY = ("llama", "roberta")


def _is_fast(name: str, family: str) -> bool:
    """One architecture a kind, by turns, and the two methods of most studies on all."""
    if name in ON_EVERY_ARCHITECTURE:
        return True
    turn = KINDS.index(name) % len(ARCHITECTURES) if name in KINDS else None
    return turn == list(ARCHITECTURES).index(family)


CASES = [
    pytest.param(name, family, marks=[] if _is_fast(name, family) else pytest.mark.slow)
    for family in ARCHITECTURES
    for name in METHODS
    if (name, family) not in UNSUPPORTED
    and (name in KINDS or name in ON_EVERY_ARCHITECTURE or family in HAVE_EVERY_ENTRY)
]


@pytest.mark.parametrize(("name", "family"), CASES)
def test_a_step_and_a_reload(name: str, family: str) -> None:
    """What trains, saved and loaded into a new model, gives the trained model's answers."""
    asked = request(name, family)
    trained = Case(asked)
    if name == "frozen":
        assert not trained.trainable()
        return
    (loss,) = trained.train(1)
    assert 0 < loss < 20
    answers = logits(trained.model)
    saved = trained.save()
    reloaded = Case(asked)
    reloaded.method.resume(reloaded.model, trained.step)
    at_the_start = storage.learnt(reloaded.model)
    moved = [name for name, x in saved["model"].items() if not torch.equal(x, at_the_start[name])]
    assert moved
    found = reloaded.model.load_state_dict(saved["model"], strict=False)
    assert found.unexpected_keys == []
    assert torch.equal(logits(reloaded.model), answers)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        pytest.param(*place, marks=pytest.mark.slow if place[0] in NEEDS else [])
        for place in UNSUPPORTED
    ],
)
def test_what_cannot_be_says_why(name: str, family: str) -> None:
    with pytest.raises(Unsupported) as caught:
        Case(request(name, family))
    assert str(caught.value).startswith(UNSUPPORTED[name, family])
