"""A file of tensors gives back what was written, or says that it is not as it was written."""

from pathlib import Path

import pytest
import torch

from rankwise.core import state_seal
from rankwise.training import state_files

CONTENTS = {
    "update": 3,
    "lost": None,
    "rates": [0.5, 0.25],
    "state": {"weight": torch.arange(3000.0), "codes": torch.arange(7, dtype=torch.uint8)},
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "0123456789abcdef.pt"
    with path.open("wb") as stream:
        state_files.save(CONTENTS, stream, path)
    return path


def test_the_contents_come_back(file: Path) -> None:
    found, problem = state_files.load(file)
    assert problem is None
    assert found["update"] == 3 and found["lost"] is None and found["rates"] == [0.5, 0.25]
    for name, tensor in CONTENTS["state"].items():
        assert found["state"][name].equal(tensor) and found["state"][name].dtype == tensor.dtype
    assert found["half"].equal(CONTENTS["half"])


def test_every_flipped_bit_is_noticed(file: Path) -> None:
    data = file.read_bytes()
    for place in [*range(0, len(data), 97), *range(len(data) - state_seal.SEAL_BYTES, len(data))]:
        file.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
        assert state_files.load(file)[0] is None, place


def test_every_cut_is_noticed(file: Path) -> None:
    data = file.read_bytes()
    for size in [*range(0, len(data), 499), len(data) - 1, len(data) - state_seal.SEAL_BYTES]:
        file.write_bytes(data[:size])
        assert state_files.load(file)[0] is None, size
    file.write_bytes(data + b" ")
    assert state_files.load(file)[0] is None


def test_the_state_of_another_run_is_refused(file: Path) -> None:
    other = file.rename(file.with_name("fedcba9876543210.pt"))
    expected = "it was written as 0123456789abcdef.pt, the state of another run"
    assert state_files.load(other) == (None, expected)
