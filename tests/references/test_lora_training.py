"""LoRA under rules that act on its gradients or after its steps: TopR, and the prunings of sparse LoRA."""

import pytest
import torch
from torch import Tensor

from helpers.formulas import formula_of
from helpers.lockstep import DECAY, EPS, RATE, AdamW, Pair, check_training, pair
from references.registry import entries

ADAMW = {"weight_decay": DECAY, "eps": EPS}


@pytest.mark.parametrize(
    "name", entries("test_lora_training.py::test_topr_trains_on_the_largest_entries")
)
def test_topr_trains_on_the_largest_entries(name: str) -> None:
    """System A: AdamW on the floor(f numel) largest entries; Stich et al. 2018: what is left over comes again."""
    # A language model: of a classifier's two biases one gradient is the other's negative, a tie.
    found = pair(name, "stories260k", optimizer=ADAMW)
    options = found.entry["optimizer"]
    found.randomise()
    errors: dict[str, Tensor] = {}

    def filtered(grads: dict[str, Tensor]) -> dict[str, Tensor]:
        kept = {}
        for parameter, grad in grads.items():
            whole = grad + errors.get(parameter, 0) if options["error_feedback"] else grad
            count = max(options["least"], int(options["fraction"] * whole.numel()))
            order = whole.abs().flatten().argsort(descending=True)
            mask = torch.zeros(whole.numel(), dtype=torch.bool)
            mask[order[:count]] = True
            kept[parameter] = whole * mask.view_as(whole)
            errors[parameter] = whole - kept[parameter]
        return kept

    check_training(found, formula_of(found), AdamW(), filtered=filtered)


OFTEN = {"begin_step": 2, "every_steps": 2, "prune_count": 2}


@pytest.mark.parametrize(
    "name", entries("test_lora_training.py::test_sparse_lora_zeroes_what_its_rule_says")
)
def test_sparse_lora_zeroes_what_its_rule_says(name: str) -> None:
    """Seven steps with prunings after 2, 4 and 6; zeros are held, or grow again in between."""
    steps = OFTEN if name != "sparse_lora_l1" else {"begin_step": 2, "l1": 2.0}
    found = pair(name, optimizer=ADAMW, options=steps)
    found.randomise()
    rule = SparseRule(found)
    check_training(found, formula_of(found), AdamW(), steps=7, after_step=rule.after_step)
    zeros = sum((value == 0).sum().item() for value in rule.factors())
    numbers = sum(value.numel() for value in rule.factors())
    if name == "sparse_lora_published":  # step 7 came after the pruning
        assert zeros == 0
    elif name == "sparse_lora_l1":
        assert 0 < zeros < numbers
    else:
        assert zeros == numbers / 2


class SparseRule:
    """The prunings, by sorting; Zhu & Gupta 2017, eq. 1, for the schedule, Ding et al. 2023 for the proximal step."""

    def __init__(self, found: Pair):
        self.options, self.theirs, self.dropped = found.entry["options"], found.theirs, {}

    def factors(self) -> list[Tensor]:
        return [value for name, value in self.theirs.items() if "lora_" in name]

    def after_step(self, t: int) -> None:
        o = self.options
        if o["kind"] == "proximal_l1":
            for value in self.factors() if t >= 2 else ():
                shrunk = (value.abs() - RATE * o["l1"]).clamp(min=0) * value.sign()
                value.data.copy_(shrunk)
            return
        if t in (2, 4, 6):
            self.prune(self.sparsity(t))
        for name, dropped in self.dropped.items() if o["hold"] else ():
            self.theirs[name].data[dropped] = 0

    def sparsity(self, t: int) -> float:
        if self.options["schedule"] == "one_shot":
            return 0.5
        return 0.5 * (1 - (1 - min(1.0, (t - 2) / 4)) ** 3)  # begins at 2, 2 prunings every 2 steps

    def prune(self, share: float) -> None:
        for name in [name for name in self.theirs if "lora_A" in name]:
            a, b = self.theirs[name].data, self.theirs[name.replace("lora_A", "lora_B")].data
            if self.options["kind"] == "structured":
                strength = torch.stack([a[i].norm() * b[:, i].norm() for i in range(len(a))])
                weakest = strength.argsort()[: int(share * len(a))]
                drop_a, drop_b = (
                    torch.zeros_like(a, dtype=torch.bool),
                    torch.zeros_like(b, dtype=torch.bool),
                )
                drop_a[weakest], drop_b[:, weakest] = True, True
            else:
                drop_a, drop_b = smallest(a, share), smallest(b, share)
            a[drop_a], b[drop_b] = 0, 0
            self.dropped[name], self.dropped[name.replace("lora_A", "lora_B")] = drop_a, drop_b


def smallest(values: Tensor, share: float) -> Tensor:
    """Which entries are the floor(share numel) of smallest magnitude."""
    order = values.abs().flatten().argsort()
    mask = torch.zeros(values.numel(), dtype=torch.bool)
    mask[order[: int(share * values.numel())]] = True
    return mask.view_as(values)
