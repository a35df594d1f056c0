"""LoRA-FA: AdamW on B alone, with the gradient that makes B A's step nearest to the full gradient.

Source: Zhang et al. 2023, arXiv 2308.03303. A is frozen: an entry says so by the method's option
`freeze_a`. Then no layer's input is kept for backward, only A x.
Where we differ from peft's optimizer: the product with the inverse is in fp32 and not in bf16, and
Adam is torch's, whose eps of 1e-8 is added after the bias correction. If A trains, it steps as in
AdamW.
"""

from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.checked import settings
from rankwise.optim.parts.factor_pairs import PairedAdamW, Pairs, row_gram
from rankwise.optim.parts.precision import wide


class LoraFA(PairedAdamW):
    """AdamW with an adjusted gradient of B.

        G_B <- G_B (A A' + damping I)^-1 / s^2

    s G_B A is then the projection of the full gradient onto the rows of A: of all steps that B can
    make, the one nearest to it.

    Args:
        params: parameters, or parameter groups.
        lr: learning rate.
        pairs: (A, B, s) of every adapted matrix, W' = W + s B A; without any it is AdamW.
        damping: added to the eigenvalues of A A'.
        betas: decays of Adam's two moments, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled, per unit of learning rate.

    References:
        Zhang et al. 2023, LoRA-FA, arXiv 2308.03303; the inverse is that of its later version, and
        of peft's LoraFAOptimizer.

    Example:
        >>> pairs = [(model[0].weight, model[2].weight, 1.0)]
        >>> optimizer = LoraFA(model.parameters(), lr=1e-4, pairs=pairs)
        >>> model(inputs).square().mean().backward(); optimizer.step()
    """

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

    def adjusted(
        self, a: Tensor, b: Tensor, scale: float, group: dict
    ) -> tuple[Tensor | None, Tensor | None]:
        """Adjust the gradient of B, (m, r); that of A, if there is one, stays."""
        if b.grad is None:
            return None, None
        return None, wide(b.grad) @ row_gram(a).inverse(group["damping"]) / scale**2
