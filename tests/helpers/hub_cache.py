"""A cache of the Hugging Face hub as a download leaves it, for tests without a network."""

from pathlib import Path

import pytest


def fill_hub_cache(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    repository: str,
    revision: str,
    files: dict[str, bytes],
) -> None:
    """Let huggingface_hub work offline, on a cache with one revision of one repository.

    Args:
        folder: Gets the cache.
        monkeypatch: That of the test.
        repository: `datasets/owner/name` or `models/owner/name`.
        revision: The commit, with 40 digits.
        files: Content of each file, by its path in the repository.
    """
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    snapshot = folder / "hub" / repository.replace("/", "--") / "snapshots" / revision
    for name, content in files.items():
        path = snapshot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
