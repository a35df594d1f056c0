"""A training step and a reload of one entry of each kind on small models of nine architectures.

All entries are tested on two of them: a decoder that predicts tokens, and an encoder that classifies.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from helpers.architectures import ARCHITECTURES, UNSUPPORTED, entry, request
from helpers.conformance import NEEDS, one_of_each_kind
from helpers.file_inputs import WORDS
from helpers.repository import ROOT
from rankwise.core.errors import Unsupported
from rankwise.measure.conformance.cases import Case, logits
from rankwise.models import build, storage
from rankwise.study import keep
from rankwise.training import keeping, kept
from rankwise.training.pretrain import word_tokenizer

METHODS = yaml.safe_load((ROOT / "config/methods.yaml").read_text())
KINDS = one_of_each_kind(METHODS)
ON_EVERY_ARCHITECTURE = ("full", "lora")
HAVE_EVERY_ENTRY = ("llama", "roberta")


def _is_fast(name: str, family: str) -> bool:
    """One architecture a kind, by turns, and the two methods of most studies on all."""
    if name in ON_EVERY_ARCHITECTURE:
        return True
    turn = KINDS.index(name) % len(ARCHITECTURES) if name in KINDS else None
    return turn == list(ARCHITECTURES).index(family)


def _is_tested(name: str, family: str) -> bool:
    return name in KINDS or family in HAVE_EVERY_ENTRY or name in ON_EVERY_ARCHITECTURE


CASES = [
    pytest.param(name, family, marks=[] if _is_fast(name, family) else pytest.mark.slow)
    for family in ARCHITECTURES
    for name in METHODS
    if (name, family) not in UNSUPPORTED and _is_tested(name, family)
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's base, with a tokenizer; it has the weights of every `Case`."""
    root = tmp_path_factory.mktemp("bases")

    def folder(family: str) -> Path:
        if not (root / family).is_dir():
            shapes = request("full", family)["shapes"]
            torch.manual_seed(0)
            built = build.from_shapes(entry(family), shapes["task"], shapes["classes"], "cpu")
            new_head = set(build.names(entry(family), shapes["task"])["new_head"])
            of_base = {
                key: value
                for key, value in built.state_dict().items()
                if not new_head & set(key.split("."))
            }
            built.save_pretrained(root / family, state_dict=of_base)
            word_tokenizer(WORDS).save_pretrained(root / family)
        return root / family

    return folder


@pytest.mark.parametrize(("name", "family"), CASES)
def test_a_step_and_a_reload(
    name: str, family: str, bases: Callable[[str], Path], tmp_path: Path
) -> None:
    """What a run keeps, opened by the loader on the base, gives the trained model's answers."""
    asked = request(name, family)
    trained = Case(asked)
    if name == "frozen":
        assert not trained.trainable()
        return
    before = {key: value.clone() for key, value in storage.learnt(trained.model).items()}
    (loss,) = trained.train(1)
    assert 0 < loss < 20
    after = storage.learnt(trained.model)
    assert any(not torch.equal(after[key], value) for key, value in before.items())
    answers = logits(trained.model)
    base, shapes = bases(family), asked["shapes"]
    run = {
        "cell": {"model": family},
        "model": asked["model"],
        "dataset": {"task": shapes["task"], "classes": list(range(shapes["classes"]))},
        # A case computes in fp32 on a quantized base, too.
        "method": {key: value for key, value in trained.entry.items() if key != "compute"},
        "schedule": {"precision": "fp32"},
    }
    for kind in keep.allowed(trained.entry, asked["model"]):  # a merge uses the model up
        keeping.keep({**run, "keep": kind}, tmp_path, trained.method, trained.model, base)
        found, _ = kept.load_trained(tmp_path / kind, base)
        if kind == keep.MERGED and trained.entry["weights"] == "int8":
            continue  # bitsandbytes' int8 rounds the inputs, too, where it evaluates on a CPU
        # The sum of a weight and what was learnt is rounded to bf16 (2**-8), and so is each layer's output.
        is_rounded = kind == keep.MERGED and trained.entry["weights"] == "bf16"
        largest = 2**-6 * answers.abs().max() if is_rounded else 1e-5
        assert torch.allclose(logits(found), answers, rtol=1e-5, atol=float(largest))


@pytest.mark.parametrize(
    ("name", "family"),
    [
        pytest.param(*place, marks=pytest.mark.slow if place[0] in NEEDS else [])
        for place in UNSUPPORTED
    ],
)
def test_what_cannot_be_says_why(name: str, family: str) -> None:
    with pytest.raises(Unsupported) as caught:
        Case(request(name, family))
    assert str(caught.value).startswith(UNSUPPORTED[name, family])
