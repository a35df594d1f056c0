"""What an operation costs, for torch's FlopCounterMode, which knows matrix products and attention, and no more.

FORMULAS has what torch leaves out: products in place and with vectors, and decompositions, whose counts are those of Golub &
Van Loan, Matrix Computations, 4th edition, to leading order, multiplications and additions each as one: Householder QR with an
explicit thin Q, 4 m n^2 - 4 n^3 / 3 for m >= n (5.2); the SVD with the left and right vectors, the cheaper of Golub & Reinsch's
and of the one by way of QR (8.6); the symmetric QR algorithm with vectors, 9 n^3 (8.3). Iterations are counted as the book
counts them: as many as usually are needed.

Elementwise counts one for each number that a pointwise operation writes, whatever it computes; copies are none.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

ATEN = torch.ops.aten
Shape = tuple[int, ...]
COPIES = ("clone", "_foreach_copy", "_foreach_copy_", "_foreach_zero_")
TORCH = ("aten", "prim", "prims", "profiler")
REDUCTIONS = ("_foreach_norm", "_foreach_max")


def qr(
    shape: Shape,  # (..., m, n)
    mode: str = "reduced",
    **_: object,
) -> int:
    """Householder's R, and Q where it is asked for, (m, min(m, n)) or (m, m). Thirds of a FLOP are dropped."""
    *batch, m, n = shape
    k = min(m, n)
    triangle = 6 * k**2 * max(m, n) - 2 * k**3
    thin = 6 * k**2 * m - 2 * k**3
    square = 12 * (m**2 * k - m * k**2) + 4 * k**3
    return prod(batch) * (triangle + {"r": 0, "reduced": thin, "complete": square}[mode]) // 3


def svd(
    shape: Shape,  # (..., m, n)
    full_matrices: bool = False,
    compute_uv: bool = True,
    **_: object,
) -> int:
    """U, S and V'; S alone without `compute_uv`, to whole FLOPs. Full and thin are the same for a square matrix."""
    *batch, m, n = shape
    n, m = sorted((m, n))
    if not compute_uv:
        return prod(batch) * min((12 * m * n**2 - 4 * n**3) // 3, 2 * m * n**2 + 2 * n**3)
    if full_matrices and m > n:
        return prod(batch) * min(4 * m**2 * n + 8 * m * n**2 + 9 * n**3, 4 * m**2 * n + 22 * n**3)
    return prod(batch) * min(14 * m * n**2 + 8 * n**3, 6 * m * n**2 + 20 * n**3)


def eigh(shape: Shape, *_: object, **__: object) -> int:
    """Eigenvalues and vectors of a symmetric matrix (..., n, n)."""
    return prod(shape[:-2]) * 9 * shape[-1] ** 3


def added_product(_: Shape, left: Shape, right: Shape, **__: object) -> int:
    """Out + left @ right, in place: the product (..., m, n) @ (..., n, p)."""
    return 2 * prod(left) * right[-1]


def with_vector(left: Shape, _: Shape, **__: object) -> int:
    """A product (m, n) @ (n), or an inner product."""
    return 2 * prod(left)


PRODUCTS: dict[Any, Callable[..., int]] = {
    ATEN.addmm_: added_product,
    ATEN.baddbmm_: added_product,
    ATEN.mv: with_vector,
    ATEN.dot: with_vector,
}
DECOMPOSITIONS: dict[Any, Callable[..., int]] = {
    ATEN.linalg_qr: qr,
    ATEN._linalg_svd: svd,
    ATEN._linalg_eigh: eigh,
}
FORMULAS = PRODUCTS | DECOMPOSITIONS


class Elementwise(TorchDispatchMode):
    """Counts pointwise operations within it, foreach's included, in `flops`; `unseen` names kernels that are not torch's own.

    What is asked of a tensor's values is answered with 1 (true) on the meta device, which has none: conditions hold.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops, self.unseen = 0, set[str]()

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is ATEN._local_scalar_dense.default and args[0].is_meta:
            return True if args[0].dtype == torch.bool else 1
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name.startswith("_foreach_") and name not in COPIES + REDUCTIONS:
            self.flops += sum(tensor.numel() for tensor in args[0])
        elif func.namespace not in TORCH:
            self.unseen.add(str(func.overloadpacket).replace(".", "::"))
        elif torch.Tag.pointwise in func.tags and name not in COPIES and isinstance(found, Tensor):
            self.flops += found.numel()
        return found
