"""The effective rank of a product, and what methods report of themselves while they train."""

import torch
from torch import nn

from rankwise.methods.lora import Lora
from rankwise.methods.parts.effective_rank import effective_rank
from rankwise.methods.sparse_lora import SparseLora
from rankwise.methods.weight_reduction import WeightReduction

NAMES = {
    "task": "classification", "head": [], "new_head": [], "hidden_size": 6,
    "modules": {"query": {"name": "query"}, "value": {"name": "value"}},
}  # fmt: skip
TARGETS = ("query", "value")


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.query(x) + self.value(x)


def test_equal_singular_values_count_in_full_and_a_zero_counts_nothing() -> None:
    left, _ = torch.linalg.qr(torch.randn(7, 3, generator=torch.Generator().manual_seed(0)))
    right, _ = torch.linalg.qr(torch.randn(5, 3, generator=torch.Generator().manual_seed(1)))
    assert abs(effective_rank(left, right.T) - 3) < 1e-6
    assert abs(effective_rank(left * torch.tensor([1.0, 1.0, 0.0]), right.T) - 2) < 1e-6
    assert effective_rank(0 * left, right.T) == 0.0


def test_it_is_the_entropy_of_the_products_own_singular_values() -> None:
    generator = torch.Generator().manual_seed(2)
    left, right = torch.randn(8, 4, generator=generator), torch.randn(4, 6, generator=generator)
    values = torch.linalg.svdvals((left @ right).double())
    share = values[values > 1e-9] / values.sum()
    assert abs(effective_rank(left, right) - torch.exp(-(share * share.log()).sum()).item()) < 1e-5


def test_lora_has_no_rank_before_it_trains_and_at_most_r_after() -> None:
    method = Lora(rank=2, targets=TARGETS)
    model = method.prepare(Pair(), NAMES)
    assert method.observe(model) == {"product_effective_rank": 0.0}
    for name, param in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(param)
    assert 1 <= method.observe(model)["product_effective_rank"] <= 2


def test_sparse_lora_counts_the_zeros_of_both_factors() -> None:
    method = SparseLora(rank=2, targets=TARGETS)
    model = method.prepare(Pair(), NAMES)
    assert method.observe(model)["sparsity_fraction"] == 0.5  # B starts at zero, A does not


def test_weight_reduction_reports_the_rank_of_what_it_kept() -> None:
    method = WeightReduction(rank=3, targets=TARGETS)
    assert 1 <= method.observe(method.prepare(Pair(), NAMES))["product_effective_rank"] <= 3
