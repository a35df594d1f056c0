"""Riemannian preconditioned LoRA: AdamW with gradients scaled by the other factor's Gram matrix.

Source: Zhang & Pilanci 2024, arXiv 2402.02347, its scaled AdamW. The default damping is that of
peft's optimizer. As there, the factor s of LoRA is left out, because Adam does not see it.
"""

from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.checked import settings
from rankwise.optim.parts.factor_pairs import PairedAdamW, Pairs, row_gram
from rankwise.optim.parts.precision import wide


class LoraRiemannian(PairedAdamW):
    """AdamW with preconditioned gradients of A and B.

        G_A <- (B'B + damping I)^-1 G_A
        G_B <- G_B (A A' + damping I)^-1

    Args:
        params: parameters, or parameter groups.
        lr: learning rate.
        pairs: (A, B, s) of every adapted matrix, W' = W + s B A; without any it is AdamW.
        damping: added to the eigenvalues of both Gram matrices; B starts at zero.
        betas: decays of Adam's two moments, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled, per unit of learning rate.

    References:
        Zhang & Pilanci 2024, Riemannian Preconditioned LoRA, arXiv 2402.02347.

    Example:
        >>> pairs = [(model[0].weight, model[2].weight, 1.0)]
        >>> optimizer = LoraRiemannian(model.parameters(), lr=1e-4, pairs=pairs)
        >>> model(inputs).square().mean().backward(); optimizer.step()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        pairs: Pairs = (),
        damping: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        super().__init__(params, lr, pairs, settings(locals()))

    def adjusted(
        self, a: Tensor, b: Tensor, scale: float, group: dict
    ) -> tuple[Tensor | None, Tensor | None]:
        """Scale both gradients, (r, n) and (m, r), where there are any."""
        damping = group["damping"]
        grad_a = grad_b = None
        if a.grad is not None:
            grad_a = row_gram(b.mT).inverse(damping) @ wide(a.grad)
        if b.grad is not None:
            grad_b = wide(b.grad) @ row_gram(a).inverse(damping)
        return grad_a, grad_b
