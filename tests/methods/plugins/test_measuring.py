"""Steps, state and FLOPs of optimizers of installed packages and of torch."""

from pathlib import Path

import pytest
import torch
from torch import nn

from helpers import conformance
from helpers.installed_package import install
from helpers.own_files import forget
from helpers.plugged import LION, STEPPING, add, request_of
from rankwise.measure.flops.count import flops
from rankwise.measure.memory.ledger import ledger
from rankwise.measure.memory.persistent import memory
from rankwise.methods.parts.base import optimizer_class
from rankwise.methods.parts.optimizers import optimizer_over


def test_lion_steps_as_its_paper_says(site: Path) -> None:
    """Chen et al. 2023, algorithm 2, by hand: c = 0.1 g, m = 0.01 g; then c = 0.9 m + 0.1 g."""
    weight = nn.Parameter(torch.tensor([[1.0, -2.0]]))
    entry = {"optimizer": {"module": LION, "betas": [0.9, 0.99], "weight_decay": 0.1}}
    optimizer = optimizer_over(
        optimizer_class(LION), {**entry, "learning_rate": 0.5}, [{"params": [weight], "lr": 0.5}], 0
    )
    weight.grad = torch.tensor([[2.0, -4.0]])
    optimizer.step()
    # W (1 - 0.5 * 0.1) - 0.5 sign(c) = [0.95 - 0.5, -1.9 + 0.5]
    assert weight.tolist() == [pytest.approx([0.45, -1.4])]
    assert optimizer.state[weight]["momentum"].tolist() == [pytest.approx([0.02, -0.04])]
    weight.grad = torch.tensor([[-0.1, 1.0]])
    optimizer.step()
    # c = 0.9 [0.02, -0.04] + 0.1 [-0.1, 1] = [0.008, 0.064]: both rise, so both weights fall.
    assert weight.tolist() == [pytest.approx([0.45 * 0.95 - 0.5, -1.4 * 0.95 - 0.5])]


@pytest.mark.parametrize(
    ("options", "bytes_a_number", "bytes_a_tensor"),
    [
        ({"module": "torch.optim:SGD"}, 0, 0),
        ({"module": "torch.optim:SGD", "momentum": 0.9}, 4, 0),
        ({"module": "torch.optim:Adagrad"}, 4, 4),  # sum of squares; the step, a number of its own
        ({"module": "torch.optim:Adam", "foreach": True}, 8, 4),
        ({"module": "torch.optim:Adam", "fused": True}, 8, 4),
        ({"module": LION}, 4, 0),
    ],
)
def test_state_is_predicted_and_measured(
    options: dict, bytes_a_number: int, bytes_a_tensor: int, site: Path
) -> None:
    add("plain", optimizer=options)
    request = request_of("plain")
    metrics = memory(request)["metrics"]
    case = conformance.cases.Case(request)
    tensors = len(case.trainable())
    expected = bytes_a_number * metrics["trainable_parameters"] + bytes_a_tensor * tensors
    assert metrics["optimizer_state_bytes"] == expected
    assert metrics["measured_optimizer_state_bytes"] == expected
    assert ("note" in metrics) == ("fused" in options)  # fused kernels have no meta form


def test_muon_of_torch_trains_the_factors_of_lora(site: Path) -> None:
    """One momentum of every number; a language model's LoRA has matrices alone."""
    metrics = memory(request_of("lora_muon", model="stories260k"))["metrics"]
    assert metrics["optimizer_state_bytes"] == 4 * metrics["trainable_parameters"]
    assert metrics["measured_optimizer_state_bytes"] == metrics["optimizer_state_bytes"]


LOOKING = STEPPING.replace(
    'p.sub_(p.grad, alpha=group["lr"])',
    'self.state[p]["rows"] = [torch.zeros(len(p))] * 1\n                '
    'p.sub_(p.grad, alpha=group["lr"] / max(1.0, p.grad.norm().tolist()))',
)


def test_a_step_that_looks_at_values_is_counted_on_the_cpu_and_its_peak_is_not_predicted(
    site: Path,
) -> None:
    install(site, "plug", "1.0", looking=LOOKING)
    add("looking", module="head_only", optimizer={"module": "plug.looking:Stepping"})
    forget()
    metrics = memory(request_of("looking"))["metrics"]
    # The head of `tiny`: a layer of 64 and one of 2 outputs, each with a bias.
    assert metrics["optimizer_state_bytes"] == 4 * (64 + 64 + 2 + 2)
    assert metrics["measured_optimizer_state_bytes"] == metrics["optimizer_state_bytes"]
    cannot = "cannot step on torch's meta device (NotImplementedError: "
    assert metrics["note"].startswith(
        f"optimizer state counted on the CPU: plug.looking:Stepping {cannot}"
    )
    result = ledger(request_of("looking", "ledger"))
    assert result["status"] == "unsupported"
    assert result["reason"].startswith(f"plug.looking:Stepping: {cannot}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "LBFGS",
            "its step needs closure, to compute the loss again within a step; training computes one "
            "gradient a step",
        ),
        (
            "SparseAdam",
            "cannot step: RuntimeError: SparseAdam does not support dense gradients, please "
            "consider Adam instead",
        ),
        (
            "Muon",
            "ValueError: Muon only supports 2D parameters whereas we found a parameter with size: "
            "torch.Size([64])",
        ),
    ],
)
def test_what_an_optimizer_cannot_do_is_unsupported(name: str, reason: str, site: Path) -> None:
    add("plain", optimizer={"module": f"torch.optim:{name}"})
    expected = {"status": "unsupported", "reason": f"torch.optim:{name}: {reason}"}
    for measure, measurement in ((memory, "memory"), (flops, "flops"), (ledger, "ledger")):
        assert measure(request_of("plain", measurement)) == expected


def test_an_option_that_the_optimizer_refuses_is_one_sentence(site: Path) -> None:
    add("plain", optimizer={"module": "torch.optim:SGD", "momentum": -1})
    with pytest.raises(ValueError, match=r"^torch\.optim:SGD: ValueError: Invalid momentum value"):
        memory(request_of("plain"))


def test_an_optimizer_that_refuses_a_rate_of_zero_can_be_profiled(site: Path) -> None:
    careful = STEPPING.replace("super()", "assert lr > 0.0\n        super()")
    install(site, "plug", "1.0", careful=careful)
    add("careful", optimizer={"module": "plug.careful:Stepping"})
    forget()
    assert memory(request_of("careful"))["metrics"]["optimizer_state_bytes"] == 0
