"""docs/methods.md names the entries that their default rate leaves at chance, from the measured file."""

from pathlib import Path

import pytest

from rankwise.analysis.flags import CHANCE
from rankwise.cli import methods_page

RUNS = f"""method,status,learning_rate,accuracy_fraction,flags
full,ok,2e-05,0.75,
lora,ok,0.0002,0.3225,{CHANCE}
hira,ok,0.001,0.25,loss still falling; {CHANCE}
oft,unsupported,0.001,,
"""


@pytest.fixture(autouse=True)
def one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting every entry takes seconds, and is not what is tested here."""
    monkeypatch.setattr(methods_page, "catalogue", lambda *_: [])


def test_entries_at_chance_are_named_with_their_rate(tmp_path: Path) -> None:
    file = tmp_path / methods_page.DEFAULT_RATES
    file.parent.mkdir(parents=True)
    file.write_text(RUNS)
    page = methods_page.page(tmp_path, "tiny", "generated_reviews", 8)
    assert "gave 3 entries one short training" in page
    assert "| --- | ---: | ---: |\n| lora | 0.0002 | 32.2 |\n| hira | 0.001 | 25.0 |\n\n" in page


def test_without_the_file_nothing_is_said(tmp_path: Path) -> None:
    page = methods_page.page(tmp_path, "tiny", "generated_reviews", 8)
    assert "Default learning rates" not in page
