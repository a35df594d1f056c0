"""Every entry of config/methods.yaml keeps the same promises; a new entry is found by itself."""

import pytest
import torch
import yaml
from torch import nn

from helpers import conformance
from helpers.conformance import (
    FORWARD_ONLY,
    RANK,
    UNSUPPORTED,
    Case,
    case,
    one_of_each_kind,
    request_of,
    skip_unsupported,
)
from helpers.repository import ROOT
from rankwise.core.errors import Unsupported
from rankwise.measure.flops.count import flops
from rankwise.measure.memory.persistent import memory
from rankwise.methods.parts.base import optimizer_class
from rankwise.study.plan import Plan

METHODS = yaml.safe_load((ROOT / "config/methods.yaml").read_text())
ENTRIES = list(METHODS)
TRAINED = [name for name in ENTRIES if name != "frozen"]
DENSE_BASE = [name for name in ENTRIES if METHODS[name].get("weights", "fp32") == "fp32"]
# Prompts and activations have no place in the base's own modules.
DO_NOT_MERGE = ("prompt_tuning", "prefix_tuning", "p_tuning", "adapter")
# Nor have prompts of every layer, and factors that a router mixes for every token.
ENTRIES_DO_NOT_MERGE = ("adaption_prompt", "lily")
# Their state is counted in bytes: tests/optim/test_bitsandbytes.py.
IN_BYTES = ("full_adamw_8bit", "full_paged_adamw")

ON_LLAMA = one_of_each_kind(METHODS)


def on_both(names: list[str]) -> pytest.MarkDecorator:
    """Each entry on the small DistilBERT and, as a slow test, on the small Llama."""
    pairs = [pytest.param(name, "tiny", id=f"{name}-tiny") for name in names]
    for name in names:
        if name in ON_LLAMA:
            marks = pytest.mark.slow
            pairs.append(pytest.param(name, "stories260k", id=f"{name}-stories260k", marks=marks))
    return pytest.mark.parametrize(("name", "model"), pairs)


every_on_both, trained_on_both = on_both(ENTRIES), on_both(TRAINED)
trained = pytest.mark.parametrize("name", TRAINED)


def test_the_smoke_study_takes_every_entry() -> None:
    study = yaml.safe_load((ROOT / "config/methods_smoke.yaml").read_text())
    plan = Plan(study, ROOT, "config/methods_smoke.yaml")
    for measurement in ("train", "ledger"):
        assert {cell.method for cell in plan.cells(measurement)} == set(ENTRIES)


@pytest.mark.parametrize(("name", "model"), UNSUPPORTED)
def test_a_refusal_is_the_methods_own_sentence(name: str, model: str) -> None:
    """From shapes and with weights, in every measurement."""
    reason = UNSUPPORTED[name, model]
    with pytest.raises(Unsupported) as caught:
        Case(name, model)
    assert str(caught.value) == reason
    for measure, measurement in ((memory, "memory"), (flops, "flops")):
        result = measure(request_of(name, model, measurement))
        assert result == {"status": "unsupported", "reason": reason}


def test_every_method_file_has_an_entry() -> None:
    modules = {entry["module"] for entry in METHODS.values()}
    files = {path.stem for path in (ROOT / "src/rankwise/methods").glob("*.py")} - {"__init__"}
    assert files == modules


@every_on_both
def test_it_starts_as_its_base_and_trains_what_it_declares(name: str, model: str) -> None:
    found = case(name, model)
    conformance.check_start(found)
    if (found.method.TRAINABLE, found.method.MODEL) != ("0", "0"):
        conformance.check_declared(found)


@trained_on_both
def test_training_moves_what_trains_and_nothing_else(name: str, model: str) -> None:
    conformance.check_training(case(name, model))


@pytest.mark.parametrize("name", [name for name in TRAINED if name not in FORWARD_ONLY])
def test_a_step_does_not_touch_gradients(name: str) -> None:
    conformance.check_gradients_survive_a_step(case(name, release=False))


@trained_on_both
def test_merged_answers_as_unmerged(name: str, model: str) -> None:
    found = case(name, model)
    if METHODS[name]["module"] in DO_NOT_MERGE or name in ENTRIES_DO_NOT_MERGE:
        assert found.method.merge(found.model) is None
    else:
        conformance.check_merged(found)


@pytest.mark.slow
@trained
def test_two_runs_are_equal_to_the_bit(name: str) -> None:
    conformance.check_equal(case(name), case(name))


@pytest.mark.slow
@trained
def test_a_resumed_run_is_the_uninterrupted_one(name: str) -> None:
    conformance.check_resumed(case(name), case(name), case(name))


@every_on_both
def test_state_and_weights_are_predicted_to_the_byte(name: str, model: str) -> None:
    """A profile fails where prediction and measurement differ."""
    result = memory(request_of(name, model))
    if result.get("status") == "unsupported":
        skip_unsupported(name, model, result["reason"])
    metrics = result["metrics"]
    assert metrics["measured_optimizer_state_bytes"] == metrics["optimizer_state_bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("name", DENSE_BASE)
def test_bf16_is_predicted_to_the_byte(name: str) -> None:
    request = request_of(name, "tiny")
    result = memory({**request, "method": {**request["method"], "weights": "bf16"}})
    if result.get("status") == "unsupported":
        skip_unsupported(name, "tiny", result["reason"])
    metrics = result["metrics"]
    assert metrics["measured_weights_bytes"] == metrics["weights_bytes"]
    assert metrics["measured_optimizer_state_bytes"] == metrics["optimizer_state_bytes"]


# The optimizers' state ----------------------------------------------------------------------------

# Which side of a matrix each entry projects, from its source. GaLore (Zhao et al. 2024, section 4.2:
# "if m <= n, we project with P alone, else with Q alone") projects the shorter side, and the methods
# that build on it do the same. System A's code projects the rows, whatever the shape.
ROWS = ("rsvd", "rsvd_released", "rsvd_truncated", "rsvd_fraction")
SHORTER = (
    *(
        "galore",
        "golore",
        "galore_dct",
        "dct_adamw",
        "fira",
        "apollo",
        "apollo_mini",
        "flora",
        "ldadam",
    ),
    *("frugal", "frugal_svd", "mlorc"),
    *("rsvd_svt", "rsvd_energy", "rsvd_transported"),
)
# VLoRP (Wu et al. 2025, section 3) cuts each row of a tall matrix into c pieces and projects a piece.
# Of a wide matrix, whose rows are the shorter side, it joins c rows and projects those.
GRANULARITY = {
    **dict.fromkeys(("vlorp", "vlorp_rademacher", "vlorp_svd", "vlorp_ss", "vlorp_os"), 4),
    "vlorp_published": 16,  # 256 in config/methods.yaml; the smoke study's override, for a small model
}
RANK_ONE = ("apollo_mini", "vlorp_published")  # they fix their rank
WIDTH = 64  # of the model `tiny`


def projected(name: str, m: int, n: int) -> dict[str, int]:
    """s, L and r of a matrix (m, n): the projected side, the other side, the rank."""
    if name in ROWS:
        s, other = m, n
    elif name in SHORTER:
        s, other = min(m, n), max(m, n)
    elif name == "lora_pro":  # moments are as large as W, in the state of either factor
        is_factor = RANK in (m, n)
        return {"M": WIDTH, "N": WIDTH} if is_factor else {"M": 0}
    elif name in GRANULARITY:
        c = GRANULARITY[name]
        s, other = (n // c, m * c) if m >= n else (m // c, n * c)
    else:
        return {}
    shorter = min(s, other)
    rank = 1 if name in RANK_ONE else RANK
    if name in ("rsvd", "rsvd_released"):  # the rank is in proportion to the matrix
        rank = rank * shorter // WIDTH
    if name == "rsvd_fraction":  # the rank is in percent
        rank = rank * shorter // 100
    return {"s": s, "L": other, "r": min(max(1, rank), shorter)}


@pytest.mark.parametrize("name", [name for name in TRAINED if name not in IN_BYTES])
def test_state_is_its_formula(name: str) -> None:
    """The numbers of docs/methods.md: the optimizer's formula summed over what trains."""
    found = case(name, release=False)
    conformance.check_state_formula(found, lambda m, n: projected(name, m, n))


@pytest.mark.parametrize(("module", "options", "gibibytes"), [
    ("projected_adam", {"rank": 128}, 1.95), ("apollo", {"rank": 128}, 1.51), ("apollo", {"rank": 1, "scaling": "tensor"}, 0.012),
    ("projfactor", {"rank": 1, "granularity": 256}, 1.52), ("projfactor", {"rank": 64, "granularity": 4}, 1.52),
    ("flora", {"rank": 128}, 0.76), ("adalomo", {}, 0.009),
])  # fmt: skip
def test_state_of_llama_2_7b_is_the_papers(module: str, options: dict, gibibytes: float) -> None:
    """State of its linear layers: 32 blocks of four square matrices and three of the feed-forward."""
    shapes = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]
    params = [nn.Parameter(torch.empty(shape, device="meta")) for shape in shapes * 32]
    optimizer = optimizer_class(module)(params, lr=1e-3, **options)
    optimizer.allocate()
    size = 0
    for state in optimizer.state.values():
        for value in state.values():
            size += value.numel() * value.element_size() if torch.is_tensor(value) else 0
    digits = len(str(gibibytes).partition(".")[2])
    assert size / 2**30 == pytest.approx(gibibytes, abs=0.5 * 10**-digits)


# FLOPs --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_LLAMA)
def test_backward_on_a_llama_is_at_most_two_and_a_half_times_forward(name: str) -> None:
    """If anything trains; tests/measure/test_count.py has the closed forms on `tiny`."""
    result = flops(request_of(name, "stories260k", "flops"))
    if result.get("status") == "unsupported":
        skip_unsupported(name, "stories260k", result["reason"])
    forward = result["metrics"]["forward_flops"]
    backward = result["metrics"]["backward_flops"]
    assert forward > 0
    assert (backward > 0) == (name not in ("frozen", *FORWARD_ONLY))
    assert backward <= 2.5 * forward
