"""How large the page of about 3,000 generated runs is, and how soon a browser can use it.

Writes benchmarks/page/page.md.

    python benchmarks/page_speed.py [FOLDER]

The page is opened at its charts. It is usable when the first one is drawn and a filter has changed
the number of runs. Times start with the navigation; they are medians of five loads of a headless
Chromium, on whatever machine this is. FOLDER is where the generated study is made, or is already.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import generated_study
from playwright.sync_api import Browser, sync_playwright

from rankwise.study import outputs

TARGET = Path(__file__).resolve().parent / "page/page.md"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LOADS = 5
LARGEST_MB, SLOWEST_S = 15, 3  # what the page promises
# Wait in the page itself, so that the driver's own waiting is not measured.
USABLE = """async () => {
  const frame = () => new Promise((resolve, reject) => {
    if (performance.now() > 60000) reject(new Error("not usable after 60 s"));
    requestAnimationFrame(resolve);
  });
  while (!document.querySelector("#charts .drawing[data-drawn]")) await frame();
  const drawn = performance.now();
  const count = () => document.querySelector("#filters output").textContent;
  const before = count();
  document.querySelector("#filters button").click();
  while (count() === before) await frame();
  await frame();
  return { drawn, usable: performance.now(), remaining: count() };
}"""


def load(browser: Browser, page: Path) -> dict:
    """Open the page in a new context; times are in milliseconds since navigation started."""
    window = browser.new_page(viewport={"width": 1440, "height": 900})
    window.goto(f"{page.as_uri()}#charts", wait_until="commit")
    window.wait_for_selector("#charts", state="attached")
    times = window.evaluate(USABLE)
    window.close()
    return times


def measure(page: Path) -> list[dict]:
    """The times of several loads."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None) or sys.exit(
        f"none of {', '.join(BROWSERS)} is installed"
    )
    with sync_playwright() as played:
        browser = played.chromium.launch(executable_path=path, args=["--no-sandbox"])
        loads = [load(browser, page) for _ in range(LOADS)]
        version = browser.version
        browser.close()
    return [{**times, "browser": version} for times in loads]


def text(page: Path, loads: list[dict]) -> str:
    """The table of the benchmark."""
    drawn_s = statistics.median(times["drawn"] for times in loads) / 1000
    usable = [times["usable"] / 1000 for times in loads]
    rows = [
        ("size of the page (MB)", f"{page.stat().st_size / 1e6:.1f}", str(LARGEST_MB)),
        ("first chart drawn (s)", f"{drawn_s:.2f}", ""),
        ("usable (s)", f"{statistics.median(usable):.2f}", str(SLOWEST_S)),
        ("slowest of the loads, usable (s)", f"{max(usable):.2f}", ""),
    ]
    lines = ["| page of generated runs | measured | at most |", "| --- | ---: | ---: |"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    machine = f"{os.cpu_count()} CPU cores, load average {os.getloadavg()[0]:.1f}"
    lines += ["", f"Medians of {len(loads)} loads, Chromium {loads[0]['browser']}, {machine}."]
    lines += [f"After a click on a filter: {loads[0]['remaining']}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make the study if it is not there, load its page, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = (given.folder or Path(scratch) / "study").resolve()
        page = root / outputs.REPORT
        if not page.is_file():
            page = generated_study.build(root, seeds=5)
        written = text(page, measure(page))
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
