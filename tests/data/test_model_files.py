"""Which files of a pretrained model are taken."""

from pathlib import Path

import pytest

from helpers.hub_cache import fill_hub_cache
from rankwise.data import model_files


def test_a_model_from_the_hub_brings_no_code_and_no_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both could run code of strangers."""
    repo = "distilbert/distilbert-base-uncased"
    revision = "12040accade4e8a0f71eabdb258fecc2e7e948be"
    files = {
        "config.json": b"{}",
        "model.safetensors": b"x",
        "tokenizer.json": b"{}",
        "pytorch_model.bin": b"p",
        "modeling.py": b"c",
    }
    fill_hub_cache(tmp_path, monkeypatch, f"models/{repo}", revision, files)
    request = {"model": {"weights": {"hub": repo, "revision": revision}}}
    result = model_files.prepare_model(request, tmp_path / "out")
    expected = {"config.json", "model.safetensors", "tokenizer.json"}
    assert set(result["files"]) == expected
    assert {file.name for file in (tmp_path / "out").iterdir()} == expected


def test_other_weights_than_the_entry_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    weights = {"files": str(tmp_path), "sha256": "0" * 64}
    with pytest.raises(ValueError, match=r"model\.safetensors: sha256 is .*, allowed: 0000"):
        model_files.checked_folder(weights)
