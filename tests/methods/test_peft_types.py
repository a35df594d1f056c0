"""What Rankwise adds to peft's types: seeds of the run, and one sentence where peft says nothing."""

import copy

import pytest
import torch

from helpers.conformance import request_of
from helpers.peft_cases import build
from rankwise.core.errors import Unsupported
from rankwise.measure.flops.count import flops
from rankwise.methods.parts.base import adapt
from rankwise.models import storage
from references.test_peft_types import adapted, of_matrix

RANK = 4
DRAWN = ("fourierft", "pvera", "randlora", "tinylora", "unilora", "waveft")


@pytest.mark.parametrize("name", DRAWN)
def test_a_random_basis_is_that_of_the_runs_seed(name: str) -> None:
    bases = [
        [of_matrix(role, adapted(name, seed)[1].base_model.model.get_submodule(role), {}) for role in ("query", "value")]
        for seed in (1, 1, 2)
    ]  # fmt: skip
    one, again, other = ([value for found in each for value in found.values()] for each in bases)
    assert all(torch.equal(*pair) for pair in zip(one, again, strict=True))
    assert not any(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_a_layer_that_peft_leaves_as_it_was_is_refused() -> None:
    """OSF leaves GPT-2's matrices alone without a word; a head would train by itself."""
    model, names = build("gpt2", "language_modelling")
    options = {"type": "OSF", "rank": RANK, "targets": ["attention"]}
    with pytest.raises(Unsupported, match=r"^peft has no OSF for .*attn.c_attn, a Conv1D$"):
        adapt({"module": "peft", "options": options}, model, names)


@pytest.mark.parametrize("name", ["boft", "loha"])
def test_a_type_says_whether_it_can_use_codes(name: str) -> None:
    """BOFT dequantizes the matrix; LoHa takes the shape of packed codes for the matrix's."""
    entry = copy.deepcopy(request_of(name, "tiny")["method"])
    model, names = build("tiny", "classification")
    stored = storage.store(model, "nf4", names)
    if name == "boft":
        adapt({**entry, "weights": "nf4"}, stored, names)
    else:
        with pytest.raises(Unsupported, match=r"^LOHA reads the dense matrix, which a quantized"):
            adapt({**entry, "weights": "nf4"}, stored, names)


def test_butterfly_factors_are_refused() -> None:
    model, names = build("tiny", "classification")
    options = {"type": "BOFT", "rank": 4, "targets": ["query"], "settings": {"boft_n_butterfly_factor": 2}}  # fmt: skip
    with pytest.raises(Unsupported, match=r"^peft computes more than one butterfly factor"):
        adapt({"module": "peft", "options": options}, model, names)


def test_a_count_says_which_function_hides_products() -> None:
    """LoHa's products are in an autograd function of peft's; the graph that fvcore reads has one node for it."""
    metrics = flops(request_of("loha", "tiny", "flops"))["metrics"]
    assert metrics["fvcore_note"] == "fvcore does not see the products of HadaWeight"
    assert "fvcore_forward_flops" not in metrics
