"""bitsandbytes' optimizers: their arithmetic against torch's, their bytes, and resuming."""

import copy
import io
import pickle
import warnings

import pytest
import torch
import yaml
from torch import nn

from helpers.repository import ROOT
from rankwise.core.schemas import check
from rankwise.measure.memory.persistent import memory
from rankwise.optim import AdamW8bit, PagedAdamW
from rankwise.study.resolve import resolve_method

CASES = {
    "adamw_8bit": (AdamW8bit, {}),
    "adamw_8bit all": (AdamW8bit, {"min_8bit_size": 1}),
    "paged": (PagedAdamW, {}),
    "paged 8 bit": (PagedAdamW, {"bits": 8}),
}
every_case = pytest.mark.parametrize("case", CASES)
MODELS = yaml.safe_load((ROOT / "config/models.yaml").read_text())


def network() -> nn.Module:
    """Tensors of 7,200, 90, 360 and 4 numbers: one is large enough for 8-bit moments by default."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(80, 90), nn.Tanh(), nn.Linear(90, 4))


def advance(model: nn.Module, optimizer: torch.optim.Optimizer, start: int, stop: int) -> None:
    for step in range(start, stop):
        x = torch.randn(16, 80, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (model(x) - x[:, :4]).square().mean().backward()
        optimizer.step()


def make(case: str, params) -> torch.optim.Optimizer:
    cls, options = CASES[case]
    return cls(params, lr=1e-2, **options)


def state(optimizer: torch.optim.Optimizer) -> list[dict]:
    """Shape and dtype of every state tensor, by parameter."""
    kinds = []
    for group in optimizer.param_groups:
        for param in group["params"]:
            tensors = optimizer.state[param].items()
            kinds.append({k: (tuple(v.shape), v.dtype) for k, v in tensors if torch.is_tensor(v)})
    return kinds


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# Arithmetic ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_paged_adamw_is_torchs(decay: float) -> None:
    ours, theirs = network(), network()
    advance(ours, PagedAdamW(ours.parameters(), lr=1e-2, weight_decay=decay), 0, 20)
    advance(theirs, torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=decay), 0, 20)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-5)


def test_eight_bits_step_like_adamw_but_for_the_rounding() -> None:
    """A first step from zero moments is sign(g) lr, so rounding shows later, and stays below a step."""

    def weights(cls: type) -> list[torch.Tensor]:
        param, weights = nn.Parameter(torch.zeros(90, 80)), []
        optimizer = cls([param], lr=1e-2, weight_decay=0.0)
        for step in range(10):
            param.grad = torch.randn(90, 80, generator=torch.Generator().manual_seed(step))
            optimizer.step()
            weights.append(param.detach().clone())
        return weights

    ours, theirs = weights(AdamW8bit), weights(torch.optim.AdamW)
    assert torch.allclose(ours[0], theirs[0], atol=1e-6)
    assert (ours[9] - theirs[9]).abs().max() < 1e-2
    assert not torch.equal(ours[9], theirs[9])


@every_case
def test_it_learns_and_again_to_the_bit(case: str) -> None:
    first, second = network(), network()
    x = torch.randn(64, 80, generator=torch.Generator().manual_seed(99))
    before = (first(x) - x[:, :4]).square().mean().item()
    advance(first, make(case, first.parameters()), 0, 30)
    advance(second, make(case, second.parameters()), 0, 30)
    assert (first(x) - x[:, :4]).square().mean() < 0.8 * before
    assert same(first, second)


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


# State --------------------------------------------------------------------------------------------


@every_case
def test_allocated_state_is_what_a_step_leaves(case: str) -> None:
    """On the CPU and, as a prediction, on the meta device; allocating changes no step."""
    stepped, allocated, meta = network(), network(), network().to("meta")
    optimizers = [make(case, model.parameters()) for model in (stepped, allocated, meta)]
    advance(stepped, optimizers[0], 0, 1)
    optimizers[1].allocate()
    optimizers[2].allocate()
    assert state(optimizers[0]) == state(optimizers[1]) == state(optimizers[2])
    for kept in optimizers[2].state.values():
        assert all(value.is_meta for value in kept.values() if torch.is_tensor(value))
    advance(allocated, optimizers[1], 0, 1)
    assert same(stepped, allocated)


@every_case
@pytest.mark.parametrize("shape", [(90, 80), (4, 90), (64, 64)])
def test_state_is_the_formula(case: str, shape: tuple[int, int]) -> None:
    cls, options = CASES[case]
    names = {"min_8bit_size": 4096, "bits": 32, **options, "m": shape[0], "n": shape[1]}
    names["k"] = shape[0] * shape[1]
    optimizer = make(case, [nn.Parameter(torch.empty(shape, device="meta"))])
    optimizer.allocate()
    kept = sum(torch.Size(size).numel() for size, _ in state(optimizer)[0].values())
    for formula in (cls.STATE, cls.formula(**options), cls.VECTOR):
        assert kept == eval(formula, {}, names)


def test_small_tensors_keep_fp32_moments() -> None:
    params = [nn.Parameter(torch.empty(size, device="meta")) for size in (4095, 4096)]
    optimizer = AdamW8bit(params)
    optimizer.allocate()
    small, large = state(optimizer)
    assert small == {"state1": ((4095,), torch.float32), "state2": ((4095,), torch.float32)}
    assert large["state1"] == ((4096,), torch.uint8)
    assert large["absmax1"] == ((16,), torch.float32)


BYTES_8BIT = 2 * (1 + 4 / 256)  # two codes, and a scale of four bytes per 256 numbers


@pytest.mark.parametrize(
    ("module", "options", "large", "tables"),
    [
        ("adamw_8bit", {}, BYTES_8BIT, 2048),
        ("paged_adamw", {}, 8, 0),
        ("paged_adamw", {"bits": 8}, BYTES_8BIT, 2048),
    ],
)
def test_bytes_are_predicted_and_measured(
    module: str, options: dict, large: float, tables: int
) -> None:
    """Tensors of tiny from 4,096 numbers, all multiples of 256, have `large` bytes a number, others 8."""
    optimizer = {"module": module, **options}
    methods = {"x": {"module": "full", "learning_rate": 1.0e-3, "optimizer": optimizer}}
    entry = check(methods, ROOT / "src/rankwise/core/schema/methods.schema.yaml", "methods")["x"]
    request = {
        "model": MODELS["tiny"],
        "method": resolve_method("x", entry, MODELS["tiny"], 0, "study: train.0"),
        "shapes": {"task": "classification", "classes": 2},
        "measured": True,
    }
    metrics = memory(request)["metrics"]
    embeddings = [96 * 64, 64 * 64, 64, 64]
    attention = 4 * [64 * 64, 64] + [64, 64]
    feed_forward = [128 * 64, 128, 128 * 64, 64, 64, 64]
    head = [64 * 64, 64, 128, 2]
    sizes = embeddings + 2 * (attention + feed_forward) + head
    assert metrics["trainable_parameters"] == sum(sizes)
    expected = sum(size * (large if size >= 4096 else 8) for size in sizes) + tables
    assert metrics["optimizer_state_bytes"] == expected
    assert metrics["measured_optimizer_state_bytes"] == expected


@every_case
def test_a_resumed_run_is_the_uninterrupted_one(case: str) -> None:
    whole, first, second = network(), network(), network()
    advance(whole, make(case, whole.parameters()), 0, 9)
    stopped = make(case, first.parameters())
    advance(first, stopped, 0, 4)
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": stopped.state_dict()}, file)
    loaded = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    second.load_state_dict(loaded["model"])
    resumed = make(case, second.parameters())
    resumed.load_state_dict(loaded["optimizer"])
    assert state(resumed) == state(stopped)
    advance(second, resumed, 4, 9)
    assert same(whole, second)


@every_case
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_a_copy_steps_as_the_original(case: str, how: str) -> None:
    model = network()
    optimizer = make(case, model.parameters())
    advance(model, optimizer, 0, 4)
    pair = (model, optimizer)
    twin, copied = copy.deepcopy(pair) if how == "deepcopy" else pickle.loads(pickle.dumps(pair))
    before = copy.deepcopy(model)
    advance(twin, copied, 4, 7)
    assert same(model, before)
    assert state(copied) == state(optimizer)
    advance(model, optimizer, 4, 7)
    assert same(model, twin)


@every_case
def test_step_hooks_run_once_a_step(case: str) -> None:
    model, seen = network(), []
    optimizer = make(case, model.parameters())
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))
    advance(model, optimizer, 0, 2)
    assert seen == ["pre", "post", "pre", "post"]


@every_case
def test_fp32_moments_of_bf16_weights_survive_a_round_trip(case: str) -> None:
    model = network().bfloat16()
    optimizer = make(case, model.parameters())
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step()
    before = state(optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    assert state(optimizer) == before
    for tensors in before:
        assert {dtype for _, dtype in tensors.values()} <= {torch.float32, torch.uint8}
