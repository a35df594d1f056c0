"""Sizes of an architecture that its family's configuration class could not mean."""

import copy

import pytest

from helpers.repository import ROOT
from rankwise.core.config import ConfigError, library
from rankwise.study.architectures import checked


@pytest.fixture
def tiny() -> dict:
    return copy.deepcopy(library(ROOT)["models"]["tiny"])


def test_a_shipped_entry_is_right(tiny: dict) -> None:
    assert checked("tiny", tiny) == tiny


@pytest.mark.parametrize("key", ["n_layers", "dim", "n_heads", "vocab_size"])
def test_null_is_no_size(key: str, tiny: dict) -> None:
    """transformers would take it, and planning could compare it with nothing."""
    tiny["architecture"][key] = None
    with pytest.raises(ConfigError) as caught:
        checked("tiny", tiny)
    place = f"config/models.yaml: tiny.architecture.{key}"
    assert str(caught.value) == f"{place}: got None, allowed: an integer of at least 1"


def test_as_many_heads_of_keys_as_heads_may_be_null() -> None:
    llama = copy.deepcopy(library(ROOT)["models"]["llama_3_2_1b"])
    llama["architecture"]["num_key_value_heads"] = None
    assert checked("llama", llama) == llama
