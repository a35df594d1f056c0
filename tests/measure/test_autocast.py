"""Autocast on the meta device: against torch's own lists, and against autocast on real tensors."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from rankwise.measure.memory import autocast

FP32, BF16 = torch.float32, torch.bfloat16


class Casts(TorchDispatchMode):
    """Counts casts to bf16, with their numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default and kwargs["dtype"] == BF16:
            self.sizes.append(args[0].numel())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_operator_of_our_lists_has_a_rule_in_torch(device: str) -> None:
    named = [
        table[device] for table in (autocast.NARROWED, autocast.FP32_RESULT, autocast.PROMOTED)
    ]
    assert set.union(*named) <= autocast.operators(device)
    assert sum(map(len, named)) == len(set.union(*named))


CALLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": functional.linear,
    "matmul": lambda x, y: x @ y.mT,
    "einsum": lambda x, y: torch.einsum("ij,kj->ik", x, y),
    "addmm": lambda x, y: torch.addmm(x.new_ones(len(y)), x, y.mT),
    "cat of two": lambda x, y: torch.cat([x, y.bfloat16()]),
    "add": lambda x, y: x.bfloat16() + y.bfloat16(),
    "layer norm": lambda x, _: functional.layer_norm(x.bfloat16(), (8,)),
    "softmax": lambda x, _: x.bfloat16().softmax(-1),
    "sum": lambda x, _: x.bfloat16().sum(),
    "squared error": lambda x, y: functional.mse_loss(x.bfloat16(), y.bfloat16()),
    "cross-entropy": lambda x, _: functional.cross_entropy(
        x.bfloat16(), torch.zeros(4, dtype=int, device=x.device)
    ),
}
# Results whose dtype differs between the devices, by torch's documentation of autocast.
ON_CUDA = {"layer norm": FP32, "softmax": FP32, "sum": FP32}


def result(name: str, device: str) -> Tensor:
    x, y = torch.ones(4, 8, device=device), torch.ones(4, 8, device=device)
    with torch.autocast("cpu", BF16):
        return CALLS[name](x, y)


@pytest.mark.parametrize("name", CALLS)
def test_meta_tensors_are_cast_as_a_cpu_and_a_gpu_would(name: str) -> None:
    real = result(name, "cpu").dtype
    with autocast.casts_of("cpu"):
        assert result(name, "meta").dtype == real
    with autocast.casts_of("cuda"):
        assert result(name, "meta").dtype == ON_CUDA.get(name, real)


def run(device: str, *, trains: bool, recomputes: bool = False) -> list[int]:
    """Casts of two steps through a layer that is used twice."""
    layer = nn.Linear(8, 8, bias=False, device=device).requires_grad_(trains)
    x = torch.ones(4, 8, device=device, requires_grad=True)
    with Casts() as casts:
        for _ in range(2):
            with torch.autocast("cpu", BF16):
                if recomputes:
                    y = checkpoint(lambda x: layer(layer(x)), x, use_reentrant=False)
                else:
                    y = layer(layer(x))
            y.float().sum().backward()
    return sorted(casts.sizes)  # torch evaluates arguments of one call in any order


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("recomputes", [True, False])
def test_casts_are_cached_as_torch_caches_them(trains: bool, recomputes: bool) -> None:
    """A trainable weight is cast once a forward pass, a frozen one at each use."""
    real = run("cpu", trains=trains, recomputes=recomputes)
    with autocast.casts_of("cpu"):
        assert run("meta", trains=trains, recomputes=recomputes) == real
    weights = real.count(64)
    passes = 4 if recomputes else 2
    assert weights == (passes if trains else 2 * passes)


def test_nothing_is_cast_outside() -> None:
    assert result("linear", "meta").dtype == FP32
    with autocast.casts_of("cuda"):
        x = torch.ones(4, 8, device="meta")
        assert functional.linear(x, x).dtype == FP32
        assert not autocast.is_active()
