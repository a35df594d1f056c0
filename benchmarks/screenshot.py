"""Take a picture of a report's first screens, for the README.

python benchmarks/screenshot.py results/report.html benchmarks/laptop/report.png
"""

import argparse
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1200, 1500  # pixels


def main() -> None:
    """Open the page in a headless browser that is on this machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None) or sys.exit(
        f"none of {', '.join(BROWSERS)} is installed"
    )
    with sync_playwright() as tool:
        window = tool.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = window.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(given.page.resolve().as_uri(), wait_until="load")
        page.wait_for_timeout(3000)  # charts are drawn when the page is idle
        page.screenshot(path=given.picture)
        window.close()


if __name__ == "__main__":
    main()
