"""What a real training does, recorded while it runs."""

import pytest

from rankwise.training import updates


def recorded_windows(monkeypatch: pytest.MonkeyPatch) -> list[list[dict]]:
    """A list that gets the micro-batches of each update that is made from now on."""
    windows: list[list[dict]] = []
    make = updates.Updater.make

    def recorded(self: updates.Updater, window: list[dict], update: int) -> updates.Made:
        windows.append(window)
        return make(self, window, update)

    monkeypatch.setattr(updates.Updater, "make", recorded)
    return windows
