"""A real browser for tests of the page."""

import os
import shutil
from collections.abc import Iterator

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def browser_path() -> str:
    """A Chromium; without one, the test fails in CI and is skipped elsewhere."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    give_up = pytest.fail if os.environ.get("CI") else pytest.skip
    return give_up(f"no browser: none of {', '.join(NAMES)}")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    path = browser_path()
    with sync_playwright() as played:
        opened = played.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield opened
        opened.close()
