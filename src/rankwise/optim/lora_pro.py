"""LoRA-Pro: LoRA's factors step so that B A follows the AdamW of full fine-tuning.

Source: Wang et al. 2024, arXiv 2407.18242, theorems 2.1 and 2.3, and its Algorithm with AdamW.

A step of A and B moves W by a matrix of low rank, the equivalent gradient. Its two moments are as
large as W: mn numbers each, whatever the rank. So the method saves gradients and trained weights,
but not the optimizer's state. The paper's runs keep that state; this is not our choice.
"""

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.checked import settings
from rankwise.optim.parts.factor_pairs import PairedAdamW, Pairs, row_gram
from rankwise.optim.parts.precision import wide, wide_zeros
from rankwise.optim.parts.rules import adam_direction


class LoraPro(PairedAdamW):
    """AdamW on the equivalent gradient of each pair, brought back to its factors.

        D_A, D_B <- adjusted(G_A, G_B)            D <- s (B D_A + D_B A)
        m, v <- Adam's moments of D               U <- m_hat / (sqrt(v_hat) + eps)
        D_A, D_B <- adjusted(s B'U, s U A')
        A <- (1 - lr * weight_decay) A - lr * D_A, and B alike

    `adjusted` is the function of this module. Parameters without a pair step as in AdamW. For a
    pair, `state[A]` holds the first moment and `state[B]` the second one, each (M, N) like the
    adapted matrix W.

    Args:
        params: parameters, or parameter groups.
        lr: learning rate.
        pairs: (A, B, s) of every adapted matrix, W' = W + s B A; without any it is AdamW.
        damping: added to the eigenvalues of A A' and B'B where they are inverted.
        betas: decays of Adam's two moments, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled, per unit of learning rate.

    References:
        Wang et al. 2024, LoRA-Pro, arXiv 2407.18242.

    Example:
        >>> pairs = [(model[0].weight, model[2].weight, 1.0)]
        >>> optimizer = LoraPro(model.parameters(), lr=1e-4, pairs=pairs)
        >>> model(inputs).square().mean().backward(); optimizer.step()
    """

    # M and N: rows and columns of the adapted matrix; M is 0 for a matrix without a pair.
    STATE = "M * N if M else 2 * m * n + 1"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        pairs: Pairs = (),
        damping: float = 1e-8,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        super().__init__(params, lr, pairs, settings(locals()))

    @classmethod
    def formula(cls, *, pairs: Pairs | None = None, **options: object) -> str:
        """Return the formula of the numbers kept per matrix; without pairs it is AdamW's."""
        is_adamw = pairs is not None and not pairs
        return PairedAdamW.STATE if is_adamw else cls.STATE

    @torch.no_grad()
    def _step_all(self) -> None:
        """Step the pairs, then all else by AdamW, which must not see the pairs' gradients."""
        groups = {id(param): group for group in self.param_groups for param in group["params"]}
        stepped = {}
        for a, b, scale in self.pairs:
            is_ours = id(a) in groups and id(b) in groups
            if is_ours and a.grad is not None and b.grad is not None:
                self._step_pair(a, b, scale, groups)
                stepped |= {a: a.grad, b: b.grad}
        for param in stepped:
            param.grad = None
        pairs, self.pairs = self.pairs, []
        try:
            super()._step_all()
        finally:
            self.pairs = pairs
            for param, grad in stepped.items():
                param.grad = grad

    def _step_pair(self, a: Tensor, b: Tensor, scale: float, groups: dict[int, dict]) -> None:
        """Take one step with A and B."""
        group = groups[id(b)]
        damping, (b1, b2) = group["damping"], group["betas"]
        shape = (b.shape[0], a.shape[1])
        for param, moment in ((a, "exp_avg"), (b, "exp_avg_sq")):
            if not self.state[param]:
                self.state[param] = {"step": 0, moment: wide_zeros(param, *shape)}
            # An integer: torch makes a tensor of it when a state is loaded.
            self.state[param]["step"] = int(self.state[param]["step"]) + 1
        wide_a, wide_b = wide(a), wide(b)
        step_a, step_b = adjusted(wide_a, wide_b, wide(a.grad), wide(b.grad), scale, damping)
        update = adam_direction(
            scale * (wide_b @ step_a + step_b @ wide_a),
            self.state[a]["exp_avg"],
            self.state[b]["exp_avg_sq"],
            self.state[b]["step"],
            b1,
            b2,
            group["eps"],
        )
        back_a, back_b = scale * (wide_b.mT @ update), scale * (update @ wide_a.mT)
        steps = adjusted(wide_a, wide_b, back_a, back_b, scale, damping)
        for param, direction in zip((a, b), steps, strict=True):
            rate, decay = groups[id(param)]["lr"], groups[id(param)]["weight_decay"]
            param.mul_(1 - rate * decay).sub_((rate * direction).to(param.dtype))

    def load_state_dict(self, state_dict: dict) -> None:
        """Load a state, as in torch, except that the moments of a pair keep their dtype."""
        super().load_state_dict(state_dict)
        params = [param for group in self.param_groups for param in group["params"]]
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        paired = {id(param) for a, b, _ in self.pairs for param in (a, b)}
        for param, index in zip(params, saved, strict=True):
            if id(param) in paired:
                for name, value in state_dict["state"].get(index, {}).items():
                    if name != "step":
                        self.state[param][name] = value.to(param.device)


def adjusted(
    a: Tensor,  # (r, n)
    b: Tensor,  # (m, r)
    grad_a: Tensor,  # (r, n)
    grad_b: Tensor,  # (m, r)
    scale: float,
    damping: float,
) -> tuple[Tensor, Tensor]:  # (r, n), (m, r)
    """The directions of A and B whose equivalent gradient is nearest to the full gradient.

        D_A = (B'B)^-1 G_A / s^2 + X A
        D_B = (I - B (B'B)^-1 B') G_B (A A')^-1 / s^2 - B X

    s (B D_A + D_B A) does not depend on X. Of all X, the one of the paper's theorem 2.3 makes D_A
    and D_B nearest to G_A and G_B: B'B X + X A A' = -(B'B)^-1 G_A A' / s^2.

    Args:
        a: A, in fp32 or fp64.
        b: B.
        grad_a: G_A = s B'G.
        grad_b: G_B = s G A'.
        scale: s.
        damping: added to the eigenvalues of B'B and A A' where they are inverted; B may be zero.

    References:
        Wang et al. 2024, LoRA-Pro, arXiv 2407.18242, theorems 2.1 and 2.3.
    """
    left, right = row_gram(b.mT), row_gram(a)
    inverse = left.inverse(damping)
    whitened = inverse @ grad_a / scale**2
    # Both matrices of the Sylvester equation are symmetric, so it is solved in their eigenbases.
    constant = -left.vectors.mT @ (whitened @ a.mT) @ right.vectors
    sums = left.values[:, None] + right.values + damping
    x = left.vectors @ (constant / sums) @ right.vectors.mT
    outside = grad_b - b @ (inverse @ (b.mT @ grad_b))
    return whitened + x @ a, outside @ right.inverse(damping) / scale**2 - b @ x
