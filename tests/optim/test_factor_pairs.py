"""Optimizers of LoRA's pairs: against peft's, and by the theorem of LoRA-Pro; what a pair may be."""

import copy
import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_lorafa_optimizer, create_riemannian_optimizer, lorafa
from torch import Tensor, nn

from rankwise.optim import LoraFA, LoraPro, LoraRiemannian
from rankwise.optim.lora_pro import adjusted

F64 = torch.float64
RATE, DECAY = 0.02, 0.1
CLASSES = [LoraFA, LoraPro, LoraRiemannian]
every_class = pytest.mark.parametrize("cls", CLASSES)


def peft_model(freeze_a: bool = False) -> PeftModel:
    """A net with two adapted matrices, one that trains whole, and a bias; s = 1.5."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    config = LoraConfig(r=2, lora_alpha=3, target_modules=["0", "2"], modules_to_save=["4"])
    model = get_peft_model(net, config).double()
    with torch.no_grad():
        for name, param in model.named_parameters():
            if "lora_B" in name:
                param.add_(0.3 * torch.randn_like(param))
            if "lora_A" in name and freeze_a:
                param.requires_grad_(False)
    return model


def pairs_of(model: PeftModel) -> list[tuple[Tensor, Tensor, float]]:
    params = dict(model.named_parameters())
    return [
        (param, params[name.replace("lora_A", "lora_B")], 1.5)
        for name, param in params.items()
        if "lora_A" in name
    ]


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [param for param in model.parameters() if param.requires_grad]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        x = torch.randn(7, 8, generator=torch.Generator().manual_seed(step), dtype=F64)
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()


def pefts_lora_fa(model: PeftModel, patch: pytest.MonkeyPatch) -> torch.optim.Optimizer:
    patch.setattr(lorafa, "is_bf16_available", lambda: False)  # it would multiply in bf16
    optimizer = create_lorafa_optimizer(model, r=2, lora_alpha=3, lr=RATE)
    optimizer.param_groups[0]["eps"] = 1e-14  # its Adam adds eps before the bias correction
    return optimizer


def pefts_riemannian(model: PeftModel, patch: pytest.MonkeyPatch) -> torch.optim.Optimizer:
    return create_riemannian_optimizer(
        model, torch.optim.AdamW, lr=RATE, reg=0.01, eps=1e-14, weight_decay=0.0
    )


@pytest.mark.parametrize(
    ("cls", "theirs"), [(LoraFA, pefts_lora_fa), (LoraRiemannian, pefts_riemannian)]
)
def test_it_steps_as_pefts(cls: type, theirs: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """peft's pseudo-inverse and ours agree to 1e-9 of a parameter."""
    ours, reference = peft_model(cls is LoraFA), peft_model()
    options = {"eps": 1e-14, "weight_decay": 0.0}
    train(ours, cls(trained(ours), RATE, pairs=pairs_of(ours), **options), 0, 8)
    train(reference, theirs(reference, monkeypatch), 0, 8)
    start = dict(peft_model().named_parameters())
    expected = dict(reference.named_parameters())
    for name, param in ours.named_parameters():
        torch.testing.assert_close(param, expected[name], atol=1e-9, rtol=1e-9)
        frozen_a = "lora_A" in name and cls is LoraFA
        has_moved = not torch.equal(param, start[name])
        assert has_moved == (("lora_" in name or "modules_to_save" in name) and not frozen_a), name


def test_the_equivalent_gradient_is_nearest_to_the_full_one() -> None:
    """LoRA-Pro's objective: least squares over all steps of A and B, by numpy.

    And of all such steps, none is nearer to the factors' own gradients.
    """
    generator = np.random.default_rng(0)
    m, n, r, s = 7, 6, 2, 1.5
    a, b, gradient = (generator.normal(size=shape) for shape in ((r, n), (m, r), (m, n)))
    g_a, g_b = s * b.T @ gradient, s * gradient @ a.T
    d_a, d_b = adjusted(*map(torch.from_numpy, (a, b, g_a, g_b)), s, 1e-14)
    ours = s * (b @ d_a.numpy() + d_b.numpy() @ a)
    # vec(s B D_A) = s (B (x) I) vec(D_A), vec(s D_B A) = s (I (x) A') vec(D_B), row by row.
    jacobian = s * np.hstack([np.kron(b, np.eye(n)), np.kron(np.eye(m), a.T)])
    best, *_ = np.linalg.lstsq(jacobian, gradient.ravel(), rcond=None)
    np.testing.assert_allclose(ours, (jacobian @ best).reshape(m, n), atol=1e-9)
    distance = np.linalg.norm(d_a.numpy() - g_a) ** 2 + np.linalg.norm(d_b.numpy() - g_b) ** 2
    for _ in range(20):
        x = 0.01 * generator.normal(size=(r, r))
        other = (
            np.linalg.norm(d_a.numpy() + x @ a - g_a) ** 2
            + np.linalg.norm(d_b.numpy() - b @ x - g_b) ** 2
        )
        assert other > distance


@every_class
def test_a_zero_b_steps_by_finite_amounts(cls: type) -> None:
    """LoRA's start: B = 0, so A has no gradient."""
    a, b = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.zeros(5, 2))
    before = a.detach().clone()
    optimizer = cls([a, b], 0.1, pairs=[(a, b, 1.0)], weight_decay=0.0)
    for step in range(3):
        optimizer.zero_grad()
        ((b @ a) - torch.ones(5, 6)).square().sum().backward()
        optimizer.step()
        if not step:
            assert torch.equal(a, before)
    assert torch.isfinite(a).all() and torch.isfinite(b).all()
    assert b.abs().max() > 0


@every_class
def test_a_resumed_run_and_a_copy_go_on_as_the_uninterrupted_one(cls: type) -> None:
    whole, first = peft_model(), peft_model()
    train(whole, cls(trained(whole), RATE, pairs=pairs_of(whole)), 0, 6)
    stopped = cls(trained(first), RATE, pairs=pairs_of(first))
    train(first, stopped, 0, 3)
    file = io.BytesIO()
    torch.save([first.state_dict(), stopped.state_dict()], file)
    copied_model, copied = copy.deepcopy((first, stopped))
    second = peft_model()
    resumed = cls(trained(second), RATE, pairs=pairs_of(second))
    weights, state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    second.load_state_dict(weights)
    resumed.load_state_dict(state)
    for model, optimizer in ((second, resumed), (copied_model, copied)):
        train(model, optimizer, 3, 6)
        for one, other in zip(model.parameters(), whole.parameters(), strict=True):
            assert torch.equal(one, other)


def test_moments_of_lora_pro_are_as_large_as_the_matrices() -> None:
    """And they stay in fp32 when a state of bf16 factors is loaded."""
    a, b = (nn.Parameter(torch.randn(shape).bfloat16()) for shape in ((2, 6), (5, 2)))
    optimizer = LoraPro([a, b], 0.1, pairs=[(a, b, 1.0)])
    (b @ a).square().sum().backward()
    optimizer.step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert optimizer.state[a]["exp_avg"].shape == optimizer.state[b]["exp_avg_sq"].shape == (5, 6)
    assert optimizer.state[a]["exp_avg"].dtype == torch.float32


@every_class
def test_gradients_come_out_as_they_went_in(cls: type) -> None:
    model = peft_model()
    optimizer = cls(trained(model), RATE, pairs=pairs_of(model))
    model(torch.ones(2, 8, dtype=F64)).square().mean().backward()
    before = [param.grad.clone() for param in trained(model)]
    optimizer.step()
    assert all(torch.equal(p.grad, g) for p, g in zip(trained(model), before, strict=True))


@every_class
def test_a_pair_without_a_product_is_refused(cls: type) -> None:
    a, b = nn.Parameter(torch.zeros(2, 6)), nn.Parameter(torch.zeros(5, 3))
    expected = rf"^{cls.__name__}: pairs\[0\]: got shapes \(2, 6\) and \(5, 3\), allowed: A of"
    with pytest.raises(ValueError, match=expected):
        cls([a, b], 0.1, pairs=[(a, b, 1.0)])


@every_class
def test_release_is_refused(cls: type) -> None:
    with pytest.raises(ValueError, match="needs the gradients of A and B at once"):
        cls([nn.Parameter(torch.zeros(2))], 0.1).release()
