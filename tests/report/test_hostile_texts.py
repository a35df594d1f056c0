"""Script in any text of the page is shown as text: the question, labels, notes, reasons, licences."""

import importlib.util
from pathlib import Path

import pytest
import yaml

from helpers.repository import ROOT

pytestmark = pytest.mark.slow
SCRIPT = """<img src=x onerror="window.ran = 1"><script>window.ran = 1</script>"""
CLOSING = "</script></style></title>" + SCRIPT + "${window.ran = 1}"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page of a generated study whose texts are scripts."""
    spec = importlib.util.spec_from_file_location(
        "generated", ROOT / "benchmarks/generated_study.py"
    )
    generated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generated)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    evil = {"module": "lora", "options": {"targets": ["query"]}, "learning_rate": 1e-3}
    evil |= {"label": f"A {SCRIPT}", "note": CLOSING, "source": CLOSING}
    (tmp_path / "config/methods.yaml").write_text(yaml.safe_dump({"evil": evil}))
    monkeypatch.setattr(generated, "METHODS", ("full", "lora", "evil"))
    monkeypatch.setattr(generated, "RANKS", (2, 4))
    plain_study, plain_training = generated.study, generated.training
    question = {"question": f"Does it run? {CLOSING}"}
    monkeypatch.setattr(generated, "study", lambda seeds: {**plain_study(seeds), **question})

    def training(cell: object, seed: int) -> dict:
        if cell.method == "full" and seed == 0:
            return {"status": "diverged", "reason": CLOSING}
        return plain_training(cell, seed)

    monkeypatch.setattr(generated, "training", training)
    return generated.build(tmp_path, 3)


def test_no_text_of_the_page_runs(page: Path, browser) -> None:
    view, complaints = browser.new_page(viewport={"width": 1440, "height": 900}), []
    view.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    view.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    view.goto(page.as_uri())
    view.wait_for_selector("html[data-ready]")
    view.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    for sheet in ("runs", "methods"):
        if view.locator(f"#sheet-{sheet}").count():
            view.locator(f"#sheet-{sheet}").scroll_into_view_if_needed()
    view.wait_for_timeout(500)
    assert view.evaluate("window.ran") is None
    assert view.locator("img[src=x]").count() == 0
    assert "<img src=x onerror=" in view.locator("body").inner_text()
    assert complaints == []  # a script that only the policy of the page stops would be told here
    view.close()
