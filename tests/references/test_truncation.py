"""Weight reduction with truncations: exact SVDs of the product, and what becomes of Adam's moments."""

import pytest
import torch
from torch import Tensor

from helpers.formulas import formula_of
from helpers.lockstep import DECAY, EPS, AdamW, Pair, check_training, pair
from references.registry import entries

KEPT = 2  # half of the rank of 4


class Truncation:
    """After every second step the product becomes its best approximation of rank 2 (Eckart & Young 1936).

    `zero_pad`, as published: zeros in the cut columns, and Adam's moments stay. `shrink`: once, the tensors get
    smaller, and the moments become those of the new factors' gradients, with variances through the squared map
    (Robert et al. 2024, LDAdam).
    """

    def __init__(self, found: Pair, adamw: AdamW):
        self.found, self.adamw = found, adamw

    def after_step(self, t: int) -> None:
        shrinks = self.found.entry["options"]["svt"] == "shrink"
        if t % 2 or (shrinks and t > 2):
            return
        for name in [name for name in self.found.theirs if name.endswith(".a")]:
            names = [name, name[:-1] + "c", name[:-1] + "b"]
            old = [self.found.theirs[each].detach() for each in names]
            u, s, vt = torch.linalg.svd((old[0] * old[1]) @ old[2], full_matrices=False)
            ours = self.found.trainable()[name].detach()[
                :, :KEPT
            ]  # signs of singular vectors are free
            signs = (u[:, :KEPT] * ours).sum(0).sign()
            new = [u[:, :KEPT] * signs, s[:KEPT], vt[:KEPT] * signs[:, None]]
            if shrinks:
                self.carry_over(names, old, new, t)
                for each, value in zip(names, new, strict=True):
                    self.found.theirs[each] = value.clone().requires_grad_()
            else:
                for each, value in zip(names, new, strict=True):
                    padded = torch.zeros_like(self.found.theirs[each])
                    padded[tuple(slice(size) for size in value.shape)] = value
                    self.found.theirs[each].data.copy_(padded)

    def carry_over(self, names: list[str], old: list[Tensor], new: list[Tensor], t: int) -> None:
        """With G the product's gradient, those of the factors are G B^T C, diag(A^T G B^T) and C A^T G."""
        first, second = 1 - 0.9**t, 1 - 0.999**t
        mean = [self.adamw.mean[name] / first for name in names]
        variance = [
            self.adamw.square[name] / second - own**2 for name, own in zip(names, mean, strict=True)
        ]
        # (A_new C_new) B_new = (A C) B on the kept part, so that B_new^T C_new = B^T C A^T A_new.
        to_a, to_b = old[0].mT @ new[0], new[2] @ old[2].mT
        to_c = (
            new[0] / new[1]
        )  # the gradient of C is the column sums of A_new * (gradient of A_new) / C_new
        new_mean = [mean[0] @ to_a, None, to_b @ mean[2]]
        new_mean[1] = (to_c * new_mean[0]).sum(0)
        new_variance = [variance[0] @ to_a**2, None, to_b**2 @ variance[2]]
        new_variance[1] = (to_c**2 * new_variance[0]).sum(0)
        for name, own, spread in zip(names, new_mean, new_variance, strict=True):
            self.adamw.mean[name] = own * first
            self.adamw.square[name] = (spread + own**2).abs() * second


@pytest.mark.parametrize("model", ["tiny", "stories260k"])
@pytest.mark.parametrize(
    "name", entries("test_truncation.py::test_training_goes_through_truncations_as_its_rule_says")
)
def test_training_goes_through_truncations_as_its_rule_says(name: str, model: str) -> None:
    options = {"svt_interval_steps": 2}
    found = pair(name, model, options, {"weight_decay": DECAY, "eps": EPS})
    answer = formula_of(found)
    found.randomise()
    adamw = AdamW()
    check_training(found, answer, adamw, after_step=Truncation(found, adamw).after_step)
    width = {value.shape[1] for name, value in found.theirs.items() if name.endswith(".a")}
    assert width == {KEPT if name == "weight_reduction_shrunk" else 4}
