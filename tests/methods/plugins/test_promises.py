"""`rankwise test method` on methods and optimizers of installed packages."""

import json
from pathlib import Path

import pytest

from helpers.installed_package import install
from helpers.own_files import forget
from helpers.plugged import add
from rankwise.cli.main import main


def verdicts_of(name: str, capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, dict]:
    status = main(["test", "method", name, "--json", *arguments])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["full_lion", "first_norms"])
def test_the_packages_of_the_docs_keep_every_promise(
    name: str, site: Path, capsys: pytest.CaptureFixture
) -> None:
    status, answer = verdicts_of(name, capsys)
    assert status == 0
    assert answer["status"] == "ok"
    made = {p["promise"] for p in answer["promises"] if p["verdict"] == "yes"}
    assert {
        "starts as its base",
        "training lowers the loss and moves only what trains",
        "a resumed run is the uninterrupted one to the bit",
        "weights and state are predicted to the byte",
    } <= made


LEAKING = """
from dataclasses import dataclass

from rankwise.methods.parts.base import Method, train_only


@dataclass(frozen=True)
class Leaking(Method):
    TRAINABLE = "m"

    def prepare(self, model, names):
        train_only(model, tuple(names["new_head"]))
        return model

    def after_step(self, model, optimizer, step):
        for name, param in model.named_parameters():
            if name.endswith("position_embeddings.weight"):
                param.data.add_(1.0)
"""


def test_a_broken_promise_is_said_and_the_others_are_still_checked(
    site: Path, capsys: pytest.CaptureFixture
) -> None:
    install(site, "plug", "1.0", leaking=LEAKING)
    add("leaking", module="plug.leaking:Leaking")
    forget()
    assert main(["test", "method", "leaking"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "leaking on tiny:"
    assert (
        "  training lowers the loss and moves only what trains: no: frozen parameters move: "
        "distilbert.embeddings.position_embeddings.weight"
    ) in lines
    declared = next(line for line in lines if "declares" in line)
    # The head alone trains, and `targets`, over which TRAINABLE is summed, are none.
    assert declared == "  trains the numbers that it declares: yes"
    assert "  starts as its base: yes" in lines


def test_an_entry_that_cannot_train_the_model_is_unsupported(
    site: Path, capsys: pytest.CaptureFixture
) -> None:
    status, answer = verdicts_of("lora_muon", capsys)
    assert status == 1
    assert answer["status"] == "unsupported"
    assert answer["reason"].startswith("torch.optim:Muon: ValueError: Muon only supports 2D")
    assert main(["test", "method", "lora_moun"]) == 1
    message = "rankwise: config/methods.yaml: entry: got 'lora_moun', allowed: "
    assert capsys.readouterr().err.startswith(message)
