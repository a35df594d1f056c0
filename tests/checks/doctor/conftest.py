"""Programs that stand in for this machine's own.

Programs that are asked (drivers, engines, sinfo) are stood in for by others of the same name on PATH, for their output is all
that is known of them; everything else is real.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.programs import stand_ins


@pytest.fixture
def tools(tmp_path: Path) -> Callable[..., str]:
    """A function that makes the only programs there are, from what each does; it returns the PATH."""
    return functools.partial(stand_ins, tmp_path / "bin")
