"""Keys that say how a profile's step is made: what goes together, and which requests have them."""

import pytest

from helpers.profiling import profile_request
from helpers.repository import ROOT
from rankwise.core.config import ConfigError, library, without
from rankwise.study import measurements
from rankwise.study.plan import Plan

SHAPES = "rankwise.measure.memory.flash_attention"
NEW_KEYS = {
    *("precision", "attention", "padded", "keeps_outputs", "use_cache", "gpu"),
    *("zeroes_gradients", "loss_input", "keeps_quantized_inputs", "keeps_softmax_inputs"),
    *("empties_cache", "quantized_from", "modules", "adapted_on_gpu", "zero_grad"),
    *("keeps_unit_inputs", "masks"),
}


def test_keys_of_a_step_are_in_requests_where_they_change_it() -> None:
    sizes = {"model": "stories260k", "dataset": "wikitext2", "sequence_length_tokens": 32}
    changed = {"precision": "bf16", "attention": "eager", "padded": True, "gpu": "hopper"}
    for measurement in ("ledger", "fits", "throughput"):
        plain = profile_request(measurement, "lora", **sizes)
        assert NEW_KEYS.isdisjoint(plain)
        request = profile_request(measurement, "lora", **changed, **sizes)
        wanted = without(changed, () if measurement != "throughput" else ("gpu",))
        assert {key: request[key] for key in NEW_KEYS & request.keys()} == wanted
    held = {
        **{"keeps_outputs": "until_update", "zeroes_gradients": True, "empties_cache": True},
        "zero_grad": "before_forward",
    }
    request = profile_request("ledger", "lora", **held, **sizes)
    assert {key: request[key] for key in held} == held
    # A timed update is one of our own loop, so other loops rerun nothing.
    timed = profile_request("throughput", "lora", **held, **sizes)
    assert timed == profile_request("throughput", "lora", **sizes)
    assert "eval_batch_size" not in profile_request("ledger", "lora", **sizes)
    assert profile_request("ledger", "lora", eval_batch_size=7, **sizes)["eval_batch_size"] == 7


ON_GPU = {"device": "cuda", "measured": False}
FLASH = {"attention": "flash", **ON_GPU, "precision": "bf16"}
CANNOT_STEP = {
    "flash in fp32": ({"precision": "fp32"}, "attention: got 'flash', allowed: sdpa or eager in fp32"),
    "flash on a CPU": ({"device": "cpu"}, "attention: got 'flash', allowed: sdpa or eager with device cpu"),
    "flash without its package": ({"measured": True}, "or flash after `pip install flash-attn`"),
    "a cache beside checkpointing": (
        {"attention": "sdpa", "use_cache": True, "checkpointing": True},
        "use_cache: got True, allowed: false with checkpointing",
    ),
    "masks of numbers where nothing is padded": (
        {"attention": "sdpa", "masks": "numbers"},
        "masks: got 'numbers', allowed: boolean without padded: true",
    ),
    "padding in litgpt's attention": (
        {"attention": "sdpa", "padded": True, "modules": "litgpt"},
        "padded: got True, allowed: false with modules: litgpt",
    ),
    "a cache in litgpt's attention": (
        {"attention": "sdpa", "generated_tokens": 8, "modules": "litgpt"},
        "generated_tokens: got 8, allowed: nothing with modules: litgpt",
    ),
    "a CPU that is no GPU": (
        {"attention": "sdpa", "device": "cpu", "adapted_on_gpu": True},
        "adapted_on_gpu: got True, allowed: false with device: cpu",
    ),
    "flash-attn in litgpt's attention": (
        {"modules": "litgpt"},
        "attention: got 'flash', allowed: sdpa with modules: litgpt",
    ),
    "inputs that nothing keeps": (
        {"attention": "sdpa", "keeps_unit_inputs": True, "checkpointing": True},
        "keeps_unit_inputs: got True, allowed: false without sharding: fsdp1",
    ),
    "logits that are never there": (
        {"loss": "chunked", "loss_input": "shifted"},
        "loss_input: got 'shifted', allowed: fp32 with loss chunked",
    ),
    "generation by a classifier": (
        {"dataset": "sst2", "attention": "sdpa", "generated_tokens": 8},
        "generated_tokens: got 8, allowed: nothing with the task",
    ),
    "prompts of no generation": (
        {"attention": "sdpa", "prompt_length_tokens": 8},
        "prompt_length_tokens: got 8, allowed: nothing without generated_tokens",
    ),
    "more tokens than positions": (
        {"attention": "sdpa", "generated_tokens": 500},
        "generated_tokens: got 500, allowed: at most 480: stories260k has 512 positions for both",
    ),
    "logits of no tokens": (
        {"dataset": "sst2", "loss_input": "logits"},
        "loss_input: got 'logits', allowed: fp32 with the task",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), CANNOT_STEP.values(), ids=CANNOT_STEP)
def test_what_a_step_cannot_be_is_said_while_planning(changes: dict, message: str) -> None:
    sizes = {"model": "stories260k", "dataset": "wikitext2", "sequence_length_tokens": 32}
    with pytest.raises(ConfigError) as raised:
        profile_request("ledger", "lora", **{**sizes, **FLASH, **changes})
    assert message in str(raised.value)


def packed_plan(method: str = "lora", **grid: object) -> Plan:
    """A plan of a ledger on a dataset of packs."""
    cell = {"models": ["stories260k"], "datasets": ["packs"], "methods": [method]}
    cell |= {"measurements": ["ledger"], "sequence_length_tokens": 32, "measured": False}
    study = {"name": "t", "question": "?", "device": "cpu", "profile": [{**cell, **grid}]}
    alpaca = library(ROOT)["datasets"]["alpaca"]
    return Plan(study, ROOT, "study", {"datasets": {"packs": {**alpaca, "packing": True}}})


CANNOT_PACK = {
    "flash-attn": (
        {"attention": "flash", "device": "cuda", "precision": "bf16"},
        "profile.0.attention: got 'flash', allowed: sdpa or eager with packing",
    ),
    "litgpt's attention": (
        {"modules": "litgpt"},
        "profile.0.modules: got 'litgpt', allowed: transformers with packing",
    ),
    "a second mask": (
        {"masks": "numbers", "padded": True},
        "profile.0.masks: got 'numbers', allowed: boolean with packing",
    ),
    "virtual tokens": (
        {"method": "prompt_tuning"},
        "packs.packing: got True, allowed: false with prompt_tuning",
    ),
}


@pytest.mark.parametrize(("changes", "message"), CANNOT_PACK.values(), ids=CANNOT_PACK)
def test_profiles_refuse_of_packs_what_training_does(changes: dict, message: str) -> None:
    assert packed_plan().cells("ledger")
    with pytest.raises(ConfigError) as raised:
        packed_plan(**changes)
    assert message in str(raised.value)


def test_keys_of_an_evaluation_need_one() -> None:
    sizes = {"model": "stories260k", "dataset": "wikitext2", "memory_gib": [1]}
    with pytest.raises(ConfigError, match="eval_batch_size: got 7, allowed: nothing without the"):
        profile_request("fits", "lora", eval_batch_size=7, **sizes)


def test_masks_of_numbers_go_with_texts_that_may_be_padded() -> None:
    sizes = {"model": "minilm", "dataset": "sst2_files", "sequence_length_tokens": "dataset"}
    assert profile_request("ledger", "lora", masks="numbers", **sizes)["masks"] == "numbers"


def test_profiles_of_a_packed_dataset_have_its_mask() -> None:
    dataset = {"packing": True, "max_length_tokens": 32}
    grid = {"batch_size": 2, "device": "cpu", "measured": False, "memory_gib": [1]}
    grid |= dict.fromkeys(("accumulation_steps", "checkpointing", "loss"))
    study = {"cpu_threads": 1}
    for measurement in ("ledger", "fits", "throughput"):
        assert measurements.settings(measurement, grid, study, dataset, 32)["packed"] is True
        assert "packed" not in measurements.settings(measurement, grid, study, {}, 32)


def test_flash_attention_has_its_source_in_the_request() -> None:
    sizes = {"model": "stories260k", "dataset": "wikitext2", "sequence_length_tokens": 32}
    assert SHAPES in profile_request("ledger", "lora", **FLASH, **sizes)["code"]
    assert SHAPES not in profile_request("ledger", "lora", **sizes)["code"]


@pytest.mark.parametrize(
    ("settings", "module"),
    [
        ({"loss_input": "logits"}, "rankwise.measure.loss_input"),
        ({"keeps_quantized_inputs": True}, "rankwise.measure.quantized_inputs"),
        ({"keeps_softmax_inputs": True}, "rankwise.measure.softmax_inputs"),
        ({"masks": "numbers", "padded": True}, "rankwise.measure.number_masks"),
        ({"quantized_from": "fp16"}, "rankwise.measure.quantized_from"),
        ({"modules": "litgpt"}, "rankwise.measure.litgpt_modules"),
        ({"adapted_on_gpu": True, **ON_GPU}, "rankwise.measure.host_buffers"),
        ({"generated_tokens": 8}, "rankwise.measure.generation"),
    ],
)
def test_what_other_loops_hold_has_its_source_in_the_request(settings: dict, module: str) -> None:
    sizes = {"model": "stories260k", "dataset": "wikitext2", "sequence_length_tokens": 32}
    assert module in profile_request("ledger", "qlora", **settings, **sizes)["code"]
    assert module not in profile_request("ledger", "qlora", **sizes)["code"]
