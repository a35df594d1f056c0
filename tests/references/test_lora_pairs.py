"""Optimizers of LoRA's pairs: entries train as the papers' equations, written out with numpy and scipy."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from helpers.formulas import formula_of
from helpers.lockstep import DECAY, EPS, RATE, AdamW, Pair, check_training, pair
from references.registry import entries

ADAMW = {"weight_decay": DECAY, "eps": EPS}
SCALE = 2.0  # alpha 8 at rank 4
# LoRA-Pro's paper has none.
DAMPING = {"lora_fa": 1e-8, "lora_riemannian": 1e-2, "lora_pro": 1e-14}
B1, B2 = 0.9, 0.999


@pytest.mark.parametrize("model", ["tiny", "stories260k"])
@pytest.mark.parametrize(
    "name", entries("test_lora_pairs.py::test_steps_are_the_equations_of_the_paper")
)
def test_steps_are_the_equations_of_the_paper(name: str, model: str) -> None:
    optimizer = {**ADAMW, "damping": DAMPING[name]}
    found = pair(name, model, options={"alpha": 8.0}, optimizer=optimizer)
    answer = formula_of(found)
    found.randomise()
    if name == "lora_pro":
        check_training(found, answer, LoraPro())
        return
    filtered = lora_fa if name == "lora_fa" else riemannian
    check_training(found, answer, AdamW(), filtered=lambda grads: filtered(found, grads))


def others(name: str) -> str:
    return name.replace("lora_B", "lora_A")


def gram_inverse(rows: Tensor, damping: float) -> Tensor:
    gram = rows @ rows.mT
    return torch.from_numpy(np.linalg.inv(gram.detach().numpy() + damping * np.eye(len(gram))))


def lora_fa(found: Pair, grads: dict[str, Tensor]) -> dict[str, Tensor]:
    """Zhang et al. 2023: A is frozen, and B's gradient is G_B (A A')^-1 / s^2."""
    frozen = dict(found.ours.named_parameters())
    changed = dict(grads)
    for name, grad in grads.items():
        if "lora_B" in name:
            a = frozen[others(name)]
            assert not a.requires_grad
            changed[name] = grad @ gram_inverse(a, DAMPING["lora_fa"]) / SCALE**2
    return changed


def riemannian(found: Pair, grads: dict[str, Tensor]) -> dict[str, Tensor]:
    """Zhang & Pilanci 2024: each gradient times the inverse Gram matrix of the other factor."""
    changed, damping = dict(grads), DAMPING["lora_riemannian"]
    for name, grad in grads.items():
        if "lora_B" in name:
            a, b = found.theirs[others(name)], found.theirs[name]
            changed[name] = grad @ gram_inverse(a, damping)
            changed[others(name)] = gram_inverse(b.mT, damping) @ grads[others(name)]
    return changed


@dataclass
class LoraPro:
    """Wang et al. 2024, theorems 2.1 and 2.3 and the algorithm with AdamW; other parameters by AdamW."""

    plain: AdamW = field(default_factory=AdamW)
    mean: dict[str, np.ndarray] = field(default_factory=dict)
    square: dict[str, np.ndarray] = field(default_factory=dict)
    t: int = 0

    def step(self, params: dict[str, Tensor], grads: dict[str, Tensor]) -> None:
        self.t += 1
        rest = {name: param for name, param in params.items() if "lora_" not in name}
        self.plain.step(rest, grads)
        for name, b in params.items():
            if "lora_B" in name:
                self.step_pair(name, params[others(name)], b, grads)

    def step_pair(self, name: str, a_param: Tensor, b_param: Tensor, grads: dict) -> None:
        a, b = (param.detach().numpy().copy() for param in (a_param, b_param))
        d_a, d_b = self.adjust(a, b, grads[others(name)].numpy(), grads[name].numpy())
        equivalent = SCALE * b @ d_a + SCALE * d_b @ a
        self.mean[name] = B1 * self.mean.get(name, 0) + (1 - B1) * equivalent
        self.square[name] = B2 * self.square.get(name, 0) + (1 - B2) * equivalent**2
        mean = self.mean[name] / (1 - B1**self.t)
        update = mean / (np.sqrt(self.square[name] / (1 - B2**self.t)) + EPS)
        d_a, d_b = self.adjust(a, b, SCALE * b.T @ update, SCALE * update @ a.T)
        with torch.no_grad():
            a_param.copy_(torch.from_numpy((1 - RATE * DECAY) * a - RATE * d_a))
            b_param.copy_(torch.from_numpy((1 - RATE * DECAY) * b - RATE * d_b))

    @staticmethod
    def adjust(
        a: np.ndarray, b: np.ndarray, g_a: np.ndarray, g_b: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Theorem 2.1, with X from the Sylvester equation of theorem 2.3."""
        btb, aat = b.T @ b, a @ a.T
        btb_inverse, aat_inverse = np.linalg.inv(btb), np.linalg.inv(aat)
        x = scipy.linalg.solve_sylvester(btb, aat, -btb_inverse @ g_a @ a.T / SCALE**2)
        outside = np.eye(len(b)) - b @ btb_inverse @ b.T
        d_a = btb_inverse @ g_a / SCALE**2 + x @ a
        d_b = outside @ g_b @ aat_inverse / SCALE**2 - b @ x
        return d_a, d_b
