"""Options that save memory: what goes together is told while planning, and requests say it."""

import importlib.util
import re

import pytest

from helpers.profiling import profile_request
from helpers.repository import ROOT
from rankwise.core.config import ConfigError
from rankwise.study.memory_options import check_loss
from rankwise.study.plan import Plan

SHAPES = "rankwise.measure.memory.flash_attention"
CHUNKED, GROUPED = "rankwise.models.chunked_loss", "rankwise.data.grouped"


def plan_of(
    model: str = "stories260k",
    dataset: str = "wikitext2",
    method: str = "lora",
    override: dict | None = None,
    device: str = "cpu",
    **schedule: object,
) -> Plan:
    """A plan of one training run."""
    grid = {"models": [model], "datasets": [dataset], "methods": [method], "seeds": [0]}
    study = {"name": "t", "question": "?", "device": device, "schedule": schedule}
    changes = {"override": {method: override}} if override else {}
    return Plan({**study, "train": [{**grid, **changes}]}, ROOT)


def requests(plan: Plan) -> tuple[dict, dict]:
    """Those of the training run and of its prediction."""
    (run,), (curve,) = plan.cells("train"), plan.cells("predict")
    return plan.request("train", run), plan.request("predict", curve)


def test_a_loss_in_chunks_is_in_the_requests_with_its_source() -> None:
    for request in requests(plan_of(loss="chunked")):
        assert CHUNKED in request["code"]
        assert request.get("loss", request.get("schedule", {}).get("loss")) == "chunked"
    for request in requests(plan_of()):
        assert CHUNKED not in request["code"]


def test_batches_by_length_rerun_training_and_its_prediction() -> None:
    """The prediction draws the same batches, for their mean length."""
    plain, grouped = requests(plan_of()), requests(plan_of(group_by_length=True))
    for request in grouped:
        assert GROUPED in request["code"]
    for request in plain:
        assert GROUPED not in request["code"]
    assert grouped[1]["lengths"] == {"seed": 0, "group_by_length": True}


def test_a_trial_has_the_sources_of_its_own_schedule() -> None:
    grid = {"models": ["stories260k"], "datasets": ["wikitext2"], "methods": ["lora"], "seeds": [0]}
    searched = {"learning_rates": [1e-3, 1e-4], "schedule": {"loss": "chunked"}}
    study = {"name": "t", "question": "?", "device": "cpu", "train": [{**grid, "search": searched}]}
    plan = Plan(study, ROOT)
    trial = plan.request("trial", plan.cells("trial")[0])
    assert trial["schedule"]["loss"] == "chunked"
    assert CHUNKED in trial["code"]
    assert CHUNKED not in plan.request("train", plan.cells("train")[0])["code"]


def test_a_ledger_has_the_accumulation_of_its_grid() -> None:
    sizes = {"model": "tiny", "dataset": "sst2", "sequence_length_tokens": 32}
    for measurement in ("ledger", "fits"):
        request = profile_request(measurement, "full", accumulation_steps=4, **sizes)
        assert request["accumulation_steps"] == 4


def test_a_prediction_has_the_precision_and_the_data_of_its_training() -> None:
    training, prediction = requests(plan_of(precision="bf16"))
    assert prediction["precision"] == "bf16"
    for key in ("dataset", "inputs"):
        assert prediction[key] == training[key]
    assert "precision" not in requests(plan_of())[1]


NOT_PREDICTED = {
    "compile": (True, "torch.compile is not predicted"),
    "activation_offload": (True, "offload of activations to the host is not predicted"),
    "offload_optimizer": ("cpu", "optimizers that live on the CPU (offload) are not predicted"),
    "mixed_precision_policy": ("bf16", "FSDP's MixedPrecisionPolicy is not predicted"),
}


@pytest.mark.parametrize("key", NOT_PREDICTED)
def test_what_a_prediction_leaves_out_is_said_by_name(key: str) -> None:
    value, missing = NOT_PREDICTED[key]
    message = f"profile.0.{key}: got {value!r}, allowed: nothing: {missing}"
    with pytest.raises(ConfigError, match=re.escape(message)):
        profile_request("ledger", "lora", **{key: value})


ATTENTION = {
    "flash on a CPU": (
        {"attention": "flash"},
        "schedule.attention: got 'flash', allowed: sdpa or eager with device cpu: flash-attn runs",
    ),
    "flash in fp32": (
        {"attention": "flash", "device": "cuda"},
        "schedule.attention: got 'flash', allowed: sdpa or eager in fp32",
    ),
    "flash without its package": (
        {"attention": "flash", "device": "cuda", "precision": "bf16"},
        "schedule.attention: got 'flash', allowed: sdpa, eager, or flash after `pip install flash-a",
    ),
}


@pytest.mark.parametrize(("schedule", "message"), ATTENTION.values(), ids=ATTENTION)
def test_attention_that_training_cannot_have(schedule: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        plan_of(**schedule)


FP16 = {
    "released": (
        "full_released",
        "fp32 or bf16 with full_released, whose optimizer uses gradients inside backward, before",
    ),
    "bf16 weights": ("full_bf16", "fp32 or bf16 with full_bf16, which has weights: bf16"),
    "a base that computes in bf16": (
        "qlora",
        "fp32 or bf16 with qlora, which has compute: bf16; or compute: autocast, which multiplies in",
    ),
}


@pytest.mark.parametrize(("method", "message"), FP16.values(), ids=FP16)
def test_fp16_is_refused_alike_by_training_and_prediction(method: str, message: str) -> None:
    with pytest.raises(ConfigError) as trained:
        plan_of(method=method, precision="fp16", max_gradient_norm=None)
    assert f"schedule.precision: got 'fp16', allowed: {message}" in str(trained.value)
    with pytest.raises(ConfigError) as predicted:
        profile_request("ledger", method, precision="fp16")
    assert f"profile.0.precision: got 'fp16', allowed: {message}" in str(predicted.value)


def test_fp16_in_shares_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="precision: got 'fp16', allowed: fp32 or bf16 with shard"
    ):
        plan_of(method="full", precision="fp16", processes=2, sharding="fsdp2")


def test_fp16_is_in_the_requests_with_the_sources_that_scale_the_loss() -> None:
    training, prediction = requests(plan_of(precision="fp16"))
    assert training["schedule"]["precision"] == prediction["precision"] == "fp16"
    for request, name in ((training, "training"), (prediction, "measure")):
        assert f"rankwise.{name}.loss_scaling" in request["code"]
    for request in requests(plan_of(precision="bf16")):
        assert not any(name.endswith("loss_scaling") for name in request["code"])


def test_attention_of_a_schedule_is_in_the_requests_where_it_changes_training() -> None:
    plain, named = requests(plan_of()), requests(plan_of(attention="sdpa"))
    assert plain == named
    assert "attention" not in plain[0]["schedule"]
    training, prediction = requests(plan_of(attention="eager"))
    assert training["schedule"]["attention"] == prediction["attention"] == "eager"


def test_one_way_to_step() -> None:
    override = {"lora": {"optimizer": {"foreach": True, "fused": True}}}
    with pytest.raises(ConfigError, match=r"optimizer\.fused: got True, allowed: one of foreach"):
        profile_request("ledger", "lora", model="distilbert", dataset="sst2", override=override)


def test_liger_is_predicted_as_our_own_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    train, predict = requests(plan_of(device="cuda", loss="liger"))
    assert (train["schedule"]["loss"], predict["loss"]) == ("liger", "chunked")


REFUSED = {
    "no language model": (
        {"model": "tiny", "dataset": "generated_reviews", "loss": "chunked"},
        "schedule.loss: got 'chunked', allowed: full with the task classification",
    ),
    "liger on a CPU": ({"loss": "liger"}, "full or chunked with device cpu"),
    "no liger": ({"loss": "liger", "device": "cuda"}, "pip install liger-kernel"),
    "a dense base": (
        {"override": {"compute": "bf16"}},
        "override.lora.compute: got 'bf16', allowed: nothing with weights fp32",
    ),
    "nothing added": (
        {"method": "full", "override": {"adapter_dtype": "fp32"}},
        "override.full.adapter_dtype: got 'fp32', allowed: nothing under full",
    ),
    "adapters narrower than the base": (
        {"override": {"adapter_dtype": "bf16"}},
        "override.lora.adapter_dtype: got 'bf16', allowed: fp32 with a base that computes in fp32",
    ),
    "release and accumulation": (
        {
            "method": "full_released",
            "loss": "chunked",
            "accumulation_steps": 2,
            "max_gradient_norm": None,
        },
        "accumulation_steps: got 2, allowed: 1 with full_released",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together_is_refused(case: str) -> None:
    settings, message = REFUSED[case]
    with pytest.raises(ConfigError) as error:
        plan_of(**settings)
    assert message in str(error.value)


def test_capped_logits_are_refused_and_a_null_cap_is_not() -> None:
    plan = plan_of(loss="chunked")
    model = plan.library["models"]["stories260k"]

    def check(**architecture: object) -> None:
        entry = {**model, "family": "gemma2", "architecture": architecture}
        check_loss("chunked", "language_modelling", "gemma", entry, "cpu", ("study", "loss"))

    with pytest.raises(ConfigError, match="gemma2 changes its logits behind the head"):
        check()
    with pytest.raises(ConfigError, match="final_logit_softcapping"):
        check(final_logit_softcapping=30.0)
    check(final_logit_softcapping=None)


@pytest.mark.parametrize(
    "override",
    [
        {"weights": "bf16", "adapter_dtype": "bf16"},
        {"weights": "bf16", "adapter_dtype": "fp32"},
        {"weights": "nf4", "compute": "bf16", "adapter_dtype": "bf16"},
        {"weights": "int8", "compute": "fp32"},
    ],
    ids=str,
)
def test_what_goes_together_is_in_the_requests(override: dict) -> None:
    for request in requests(plan_of(override=override)):
        assert {name: request["method"][name] for name in override} == override
