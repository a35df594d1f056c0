"""Requests as files, and the environment variables that are read."""

import re
from pathlib import Path

import pytest

from helpers.repository import ROOT
from rankwise.core import provenance, requests, result, settings

REQUEST = {
    "measurement": "train",
    "cell": {"model": "tiny", "dataset": "reviews", "method": "lora", "rank": 8, "seed": 1},
    "method": {"learning_rate": 2.0e-4, "options": {"targets": ["q", "v"]}},
    "code": {},
}


def test_a_request_is_read_back_as_it_was(tmp_path: Path) -> None:
    digest = requests.write(REQUEST, tmp_path)
    assert requests.read(tmp_path / requests.file(digest)) == REQUEST
    assert digest == provenance.digest(REQUEST)


def test_key_order_makes_no_other_file(tmp_path: Path) -> None:
    requests.write(REQUEST, tmp_path)
    requests.write(dict(reversed(REQUEST.items())), tmp_path)
    assert len(list((tmp_path / "results/.requests").iterdir())) == 1


def test_keys_that_are_numbers_make_no_other_digest(tmp_path: Path) -> None:
    """As in a claim's published values by rank; as numbers 16 comes before 128, as texts behind."""
    request = {"published": {16: 0.5, 128: 0.7}, "cell": REQUEST["cell"]}
    path = tmp_path / requests.file(requests.write(request, tmp_path))
    assert requests.read(path)["published"] == {"16": 0.5, "128": 0.7}


def test_a_request_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / requests.file(requests.write(REQUEST, tmp_path))
    path.write_text(path.read_text().replace("0.0002", "0.0003"))
    with pytest.raises(requests.RequestChanged, match=f"{path.stem}, as the name says"):
        requests.read(path)


def test_a_result_gives_the_request_that_it_answers(tmp_path: Path) -> None:
    result.write(tmp_path / "train.json", REQUEST, {}, {})
    assert requests.read(tmp_path / "train.json") == REQUEST


@pytest.mark.parametrize(("request_", "title"), [
    (REQUEST, "tiny/reviews, lora, rank 8, seed 1, learning rate 0.0002"),
    ({"dataset": {}, "name": "reviews"}, "dataset reviews"),
    ({"model": {}, "dataset": {}, "name": "tiny"}, "model tiny"),
])  # fmt: skip
def test_a_title_says_what_a_job_computes(request_: dict, title: str) -> None:
    assert requests.title(request_) == title


def test_every_variable_is_read_in_one_module() -> None:
    """Elsewhere the environment may be passed on or set, but no variable is looked up."""
    lookup = re.compile(r"(?:environ\.get\(|environ\[|getenv\()\s*[\"'](\w+)")
    for path in (ROOT / "src").rglob("*.py"):
        for name in lookup.findall(path.read_text()):
            # PATH and PYTHONPATH are extended, and USER names the owner of a lock in a message.
            known = ("PATH", "PYTHONPATH", "USER")
            assert path.name == "settings.py" or name in known or _is_set(path, name), (
                f"{path}: {name}"
            )


def _is_set(path: Path, name: str) -> bool:
    return bool(re.search(rf"environ\[\"{name}\"\] = ", path.read_text()))


def test_an_empty_variable_is_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKWISE_TRACKER", "")
    assert settings.read("RANKWISE_TRACKER") == "none"
    monkeypatch.setenv("RANKWISE_TRACKER", "wandb")
    assert settings.read("RANKWISE_TRACKER") == "wandb"
