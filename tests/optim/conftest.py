"""A fixture of tests of optimizers: the bases that they draw."""

import pytest
from torch import Tensor

from rankwise.optim.parts import projectors


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The bases that were drawn, in order."""
    bases, draw = [], projectors.draw

    def spy(*arguments) -> Tensor:
        bases.append(draw(*arguments))
        return bases[-1]

    monkeypatch.setattr(projectors, "draw", spy)
    return bases
