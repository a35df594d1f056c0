"""The shipped entries of well-known models: derived from their configurations, of their published sizes."""

import json
from pathlib import Path

import pytest
import torch
import transformers
import yaml

from helpers.published_models import MODELS
from helpers.repository import ROOT
from rankwise.cli.main import main
from rankwise.models import build
from rankwise.models.derive import Choices, derive

ENTRIES = yaml.safe_load((ROOT / "config/models.yaml").read_text())
DERIVED = ("family", "hidden_size", "max_positions_tokens", "architecture", "modules", "head")
TASK_BY_CLASS = {"ForCausalLM": "language_modelling", "ForMaskedLM": "masked_language_modelling"}
# Keys of a published config.json that the family of the installed transformers does not read.
UNREAD = {"qwen3_30b_a3b": ("max_window_layers",)}
FAST = ("pythia_160m", "roberta_base")


def _folder(root: Path, name: str, **changes: object) -> None:
    (root / name).mkdir()
    config = {**MODELS[name].config, **changes}
    (root / name / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", MODELS)
def test_an_entry_has_the_published_number_of_parameters(name: str) -> None:
    """The hub counts the class that the weights belong to."""
    config, parameters, _ = MODELS[name]
    task = TASK_BY_CLASS["For" + config["architectures"][0].rpartition("For")[2]]
    model = build.checked_from_shapes(ENTRIES[name], task, 0)
    assert type(model).__name__ == config["architectures"][0]
    assert sum(param.numel() for param in model.parameters()) == parameters


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in MODELS],
)
def test_an_entry_is_what_add_model_derives_from_the_configuration(
    name: str, tmp_path: Path
) -> None:
    _folder(tmp_path, name)
    derived = derive(name, Choices(name, shapes_only=True), tmp_path).entry
    assert {key: ENTRIES[name][key] for key in DERIVED} == {key: derived[key] for key in DERIVED}
    assert "weights" not in derived
    assert derived["note"] == "known by its shapes alone"


@pytest.mark.parametrize("name", MODELS)
def test_an_entry_computes_what_its_configuration_says(name: str, tmp_path: Path) -> None:
    """transformers reads both alike: rotary tables, windows, soft caps, norms."""
    _folder(tmp_path, name)
    published = transformers.AutoConfig.from_pretrained(tmp_path / name).to_dict()
    entry = ENTRIES[name]
    shipped = transformers.AutoConfig.for_model(entry["family"], **entry["architecture"]).to_dict()
    unread = UNREAD.get(name, ())
    assert published.keys() == {*shipped.keys(), *unread}
    of_the_file = ("_name_or_path", "architectures", *unread)
    assert {k: v for k, v in shipped.items() if k not in of_the_file} == {
        k: v for k, v in published.items() if k not in of_the_file
    }


def test_shapes_alone_need_a_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    _folder(tmp_path, "smollm2_135m", architectures=None)
    assert main(["add", "model", "smollm2_135m", "--shapes"]) == 1
    assert capsys.readouterr().err == (
        f"rankwise: {tmp_path}/smollm2_135m/config.json: architectures: got nothing, allowed: the name of transformers' class "
        "that the weights belong to, such as LlamaForCausalLM\n"
    )


def test_tables_of_a_long_context_are_those_of_the_configuration(tmp_path: Path) -> None:
    """Llama 3.2 divides its low frequencies by 32, Llama 3 none: by hand, from the card's numbers."""
    lowest = 500_000.0 ** (-126 / 128)
    for name, divisor in (("llama_3_2_3b", 32.0), ("llama_3_1_8b", 8.0), ("llama_3_8b", 1.0)):
        entry = {**ENTRIES[name], "architecture": {**ENTRIES[name]["architecture"]}}
        entry["architecture"] |= {"num_hidden_layers": 1, "vocab_size": 8, "intermediate_size": 8}
        model = build.from_shapes(entry, "language_modelling", 0, "cpu")
        frequencies = model.model.rotary_emb.inv_freq
        torch.testing.assert_close(frequencies[0].item(), 1.0)
        torch.testing.assert_close(frequencies[-1].item(), lowest / divisor, rtol=1e-5, atol=0)
