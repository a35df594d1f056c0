"""bitsandbytes' optimizers: their arithmetic against torch's, their bytes, and a resumed run against an uninterrupted one."""

import io
import warnings
from collections.abc import Callable

import pytest
import torch
import yaml
from torch import nn

from helpers.repository import ROOT
from rankwise.core.config import check
from rankwise.measure.memory.persistent import memory
from rankwise.optim.adamw_8bit import AdamW8bit
from rankwise.optim.paged_adamw import PagedAdamW
from rankwise.study.resolve import resolve_method

CASES = {
    "adamw_8bit": (AdamW8bit, {}),
    "adamw_8bit all": (AdamW8bit, {"min_8bit_size": 1}),
    "paged": (PagedAdamW, {}),
    "paged 8 bit": (PagedAdamW, {"bits": 8}),
}
each_case = pytest.mark.parametrize("case", CASES)
MODELS = yaml.safe_load((ROOT / "config/models.yaml").read_text())


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(80, 90), nn.Tanh(), nn.Linear(90, 4)
    )  # 7,200 numbers, 360, 90, 4


def advance(model: nn.Module, optimizer: torch.optim.Optimizer, start: int, stop: int) -> None:
    for step in range(start, stop):
        x = torch.randn(16, 80, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (model(x) - x[:, :4]).square().mean().backward()
        optimizer.step()


def make(case: str) -> Callable[..., torch.optim.Optimizer]:
    optimizer, options = CASES[case]
    return lambda params, **more: optimizer(params, lr=1e-2, **options, **more)


def state(optimizer: torch.optim.Optimizer) -> list[dict]:
    """Shape and dtype of every tensor that each parameter keeps."""
    return [
        {
            name: (tuple(v.shape), v.dtype)
            for name, v in optimizer.state[p].items()
            if torch.is_tensor(v)
        }
        for group in optimizer.param_groups
        for p in group["params"]
    ]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_paged_adamw_is_torchs(decay: float) -> None:
    ours, theirs = network(), network()
    advance(ours, PagedAdamW(ours.parameters(), lr=1e-2, weight_decay=decay), 0, 20)
    advance(theirs, torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=decay), 0, 20)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-5)


def test_eight_bits_step_like_adamw_but_for_the_rounding() -> None:
    """A first step from zero moments is sign(g) lr, so that what 8 bits change is seen later, and stays below a step."""
    found = {}
    for name, optimizer in {"ours": AdamW8bit, "torch": torch.optim.AdamW}.items():
        param = nn.Parameter(torch.zeros(90, 80))
        stepping = optimizer([param], lr=1e-2, weight_decay=0.0)
        for step in range(10):
            param.grad = torch.randn(90, 80, generator=torch.Generator().manual_seed(step))
            stepping.step()
            found[name, step] = param.detach().clone()
    assert torch.allclose(found["ours", 0], found["torch", 0], atol=1e-6)
    assert (found["ours", 9] - found["torch", 9]).abs().max() < 1e-2
    assert not torch.equal(found["ours", 9], found["torch", 9])


@each_case
def test_it_learns_and_again_to_the_bit(case: str) -> None:
    first, second = network(), network()
    x = torch.randn(64, 80, generator=torch.Generator().manual_seed(99))
    before = (first(x) - x[:, :4]).square().mean().item()
    advance(first, make(case)(first.parameters()), 0, 30)
    advance(second, make(case)(second.parameters()), 0, 30)
    assert (first(x) - x[:, :4]).square().mean() < 0.8 * before
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


@each_case
def test_allocated_state_is_what_a_step_leaves(case: str) -> None:
    """On the CPU and, the prediction, on the meta device; allocating changes no step."""
    stepped, allocated, meta = network(), network(), network().to("meta")
    optimizers = [make(case)(model.parameters()) for model in (stepped, allocated, meta)]
    advance(stepped, optimizers[0], 0, 1)
    optimizers[1].allocate()
    optimizers[2].allocate()
    assert state(optimizers[0]) == state(optimizers[1]) == state(optimizers[2])
    assert all(
        v.is_meta for s in optimizers[2].state.values() for v in s.values() if torch.is_tensor(v)
    )
    advance(allocated, optimizers[1], 0, 1)
    assert all(
        torch.equal(a, b) for a, b in zip(stepped.parameters(), allocated.parameters(), strict=True)
    )


@each_case
def test_state_is_the_formula(case: str) -> None:
    optimizer, options = CASES[case]
    known = {"min_8bit_size": 4096, "bits": 32, **options}
    for shape in [(90, 80), (4, 90), (64, 64)]:
        made = optimizer([nn.Parameter(torch.empty(shape, device="meta"))], lr=1e-2, **options)
        made.allocate()
        numbers = sum(torch.Size(size).numel() for size, _ in state(made)[0].values())
        for formula in (optimizer.STATE, optimizer.formula(**options)):
            assert numbers == eval(formula, {**known, "m": shape[0], "n": shape[1]})
        assert numbers == eval(optimizer.VECTOR, {**known, "k": shape[0] * shape[1]})


def test_small_tensors_keep_fp32_moments() -> None:
    optimizer = AdamW8bit(
        [
            nn.Parameter(torch.empty(4095, device="meta")),
            nn.Parameter(torch.empty(4096, device="meta")),
        ]
    )
    optimizer.allocate()
    small, large = state(optimizer)
    assert small == {"state1": ((4095,), torch.float32), "state2": ((4095,), torch.float32)}
    assert large["state1"] == ((4096,), torch.uint8)
    assert large["absmax1"] == ((16,), torch.float32)


@pytest.mark.parametrize(("module", "options", "large", "small"), [
    ("adamw_8bit", {}, 2 * (1 + 4 / 256), 8), ("paged_adamw", {}, 8, 8), ("paged_adamw", {"bits": 8}, 2 * (1 + 4 / 256), 8),
])  # fmt: skip
def test_bytes_are_predicted_and_measured(
    module: str, options: dict, large: float, small: int
) -> None:
    """Tiny's tensors: from 4,096 numbers (all of them multiples of 256) `large` bytes a number, else `small`; tables once."""
    methods = {
        "x": {"module": "full", "learning_rate": 1.0e-3, "optimizer": {"module": module, **options}}
    }
    entry = check(methods, ROOT / "src/rankwise/core/schema/methods.schema.yaml", "methods")["x"]
    entry = resolve_method("x", entry, MODELS["tiny"], 0, "study: train.0")
    asked = {
        "model": MODELS["tiny"],
        "method": entry,
        "shapes": {"task": "classification", "classes": 2},
        "measured": True,
    }
    found = memory(asked)["metrics"]
    sizes = [
        96 * 64,
        64 * 64,
        64,
        64,
        *2 * [*4 * [64 * 64, 64], 64, 64, 128 * 64, 128, 128 * 64, 64, 64, 64],
        64 * 64,
        64,
        128,
        2,
    ]
    assert sum(sizes) == found["trainable_parameters"]
    tables = 2048 if large < 8 else 0
    assert (
        found["optimizer_state_bytes"]
        == sum(n * (large if n >= 4096 else small) for n in sizes) + tables
    )
    assert found["measured_optimizer_state_bytes"] == found["optimizer_state_bytes"]


@each_case
def test_a_resumed_run_is_the_uninterrupted_one(case: str) -> None:
    whole, first, second = network(), network(), network()
    advance(whole, make(case)(whole.parameters()), 0, 9)
    optimizer = make(case)(first.parameters())
    advance(first, optimizer, 0, 4)
    saved = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, saved)
    loaded = torch.load(io.BytesIO(saved.getvalue()), weights_only=True)
    second.load_state_dict(loaded["model"])
    resumed = make(case)(second.parameters())
    resumed.load_state_dict(loaded["optimizer"])
    assert state(resumed) == state(optimizer)
    advance(second, resumed, 4, 9)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True)
    )


@each_case
def test_fp32_moments_of_bf16_weights_survive_a_round_trip(case: str) -> None:
    model = network().bfloat16()
    optimizer = make(case)(model.parameters())
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step()
    before = state(optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    assert state(optimizer) == before
    assert {kind for tensors in before for _, kind in tensors.values()} <= {
        torch.float32,
        torch.uint8,
    }


def test_groups_keep_their_own_rates_and_keys() -> None:
    fast, slow = nn.Parameter(torch.zeros(90, 80)), nn.Parameter(torch.zeros(90, 80))
    groups = [{"params": [fast], "lr": 1e-1}, {"params": [slow], "lr": 1e-3, "dense": True}]
    optimizer = AdamW8bit(groups, lr=1e-2, weight_decay=0.0)
    fast.grad = slow.grad = torch.ones(90, 80)
    optimizer.step()
    assert torch.allclose(fast, 100 * slow)
    assert [group.get("dense") for group in optimizer.param_groups] == [None, True]


def test_pages_on_a_cpu_are_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = network()
        advance(model, PagedAdamW(model.parameters(), lr=1e-2), 0, 1)
