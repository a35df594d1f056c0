"""FLOPs of operations that torch's FlopCounterMode does not know.

torch counts matrix products out of place and attention, and nothing else. FORMULAS adds products in
place and with vectors, and decompositions.

Decompositions follow Golub & Van Loan, Matrix Computations, 4th edition, to leading order, with
multiplications and additions as one FLOP each. Iterations count as often as the book says they are
usually needed.

- Householder QR with an explicit thin Q: 4 m n^2 - 4 n^3 / 3 for m >= n (section 5.2).
- SVD with left and right vectors: the cheaper of Golub & Reinsch's method and of the one that
  starts with a QR (section 8.6).
- Symmetric QR algorithm with eigenvectors: 9 n^3 (section 8.3).

Elementwise counts one FLOP for each number that a pointwise operation writes, whatever it computes.
Copies are free.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from rankwise.measure.meta_values import assumed_value, reads_meta_value

ATEN = torch.ops.aten
Shape = tuple[int, ...]

COPIES = ("clone", "_foreach_copy", "_foreach_copy_", "_foreach_zero_")
REDUCTIONS = ("_foreach_norm", "_foreach_max")
# Operators of these namespaces are torch's own; any other is a kernel that no counter looks into.
TORCH_NAMESPACES = ("aten", "prim", "prims", "profiler")


def qr(
    shape: Shape,  # (..., m, n)
    mode: str = "reduced",
    **_: object,
) -> int:
    """FLOPs of a Householder QR, rounded down to whole FLOPs.

    Args:
        shape: Of the matrix, with any batch dimensions in front.
        mode: `r` (no Q), `reduced` (Q is (m, min(m, n))) or `complete` (Q is (m, m)).
        **_: Other arguments that FlopCounterMode passes, such as `out_shape`; not used.

    References:
        Golub & Van Loan, 4th edition, section 5.2.
    """
    *batch, m, n = shape
    k = min(m, n)
    # Three times the FLOPs, to stay with integers: the book's terms are in thirds of n^3.
    triangle = 6 * k**2 * max(m, n) - 2 * k**3
    thin_q = 6 * k**2 * m - 2 * k**3
    square_q = 12 * (m**2 * k - m * k**2) + 4 * k**3
    q = {"r": 0, "reduced": thin_q, "complete": square_q}[mode]
    return prod(batch) * (triangle + q) // 3


def svd(
    shape: Shape,  # (..., m, n)
    full_matrices: bool = False,
    compute_uv: bool = True,
    **_: object,
) -> int:
    """FLOPs of an SVD, rounded down to whole FLOPs.

    Each line is the cheaper of two methods: Golub & Reinsch on the matrix itself, or on the R of a
    QR, which wins for tall matrices. A wide matrix costs what its transpose does.

    Args:
        shape: Of the matrix, with any batch dimensions in front.
        full_matrices: Whether U is (m, m); for a square matrix this makes no difference.
        compute_uv: Whether singular vectors are computed, or singular values alone.
        **_: Other arguments that FlopCounterMode passes, such as `out_shape`; not used.

    References:
        Golub & Van Loan, 4th edition, section 8.6 (table of SVD costs).
    """
    *batch, rows, columns = shape
    m, n = max(rows, columns), min(rows, columns)
    if not compute_uv:
        one = min((12 * m * n**2 - 4 * n**3) // 3, 2 * m * n**2 + 2 * n**3)
    elif full_matrices and m > n:
        one = min(4 * m**2 * n + 8 * m * n**2 + 9 * n**3, 4 * m**2 * n + 22 * n**3)
    else:
        one = min(14 * m * n**2 + 8 * n**3, 6 * m * n**2 + 20 * n**3)
    return prod(batch) * one


def eigh(shape: Shape, *_: object, **__: object) -> int:
    """FLOPs of all eigenvalues and eigenvectors of a symmetric matrix.

    Args:
        shape: Of the matrix, (..., n, n).
        *_: The operator's other arguments; not used.
        **__: Other arguments that FlopCounterMode passes, such as `out_shape`; not used.

    References:
        Golub & Van Loan, 4th edition, section 8.3.
    """
    return prod(shape[:-2]) * 9 * shape[-1] ** 3


def product_in_place(
    _out: Shape,
    left: Shape,  # (..., m, n)
    right: Shape,  # (..., n, p)
    **_: object,
) -> int:
    """FLOPs of out += left @ right.

    Args:
        _out: Shape of the tensor that is added to, (..., m, p); not used.
        left: Shape of the left factor.
        right: Shape of the right factor.
        **_: Other arguments that FlopCounterMode passes, such as `out_shape`; not used.

    References:
        `addmm_flop` and `baddbmm_flop` in torch/utils/flop_counter.py, which count the same
        products out of place.
    """
    return 2 * prod(left) * right[-1]


def product_with_vector(
    left: Shape,  # (m, n) or (n,)
    _vector: Shape,  # (n,)
    **_: object,
) -> int:
    """FLOPs of left @ vector.

    Args:
        left: Shape of the matrix, or of the first vector of an inner product.
        _vector: Shape of the vector; not used.
        **_: Other arguments that FlopCounterMode passes, such as `out_shape`; not used.
    """
    return 2 * prod(left)


# FlopCounterMode calls each of these with the shapes of an operator's tensor arguments.
PRODUCTS: dict[Any, Callable[..., int]] = {
    ATEN.addmm_: product_in_place,
    ATEN.baddbmm_: product_in_place,
    ATEN.mv: product_with_vector,
    ATEN.dot: product_with_vector,
}
DECOMPOSITIONS: dict[Any, Callable[..., int]] = {
    ATEN.linalg_qr: qr,
    ATEN._linalg_svd: svd,
    ATEN._linalg_eigh: eigh,
}
FORMULAS = PRODUCTS | DECOMPOSITIONS


class Elementwise(TorchDispatchMode):
    """Count pointwise operations, foreach's included, while the mode is active.

    It also answers reads of a meta tensor's value (meta_values.py), so that conditions hold.

    Attributes:
        flops: One for each number written.
        unseen: Names of kernels that are not torch's own, whose FLOPs are unknown.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops, self.unseen = 0, set[str]()

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if reads_meta_value(func, args):
            return assumed_value(args[0])
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        # A foreach operator carries no pointwise tag and writes a list of tensors.
        if name.startswith("_foreach_") and name not in COPIES + REDUCTIONS:
            self.flops += sum(tensor.numel() for tensor in args[0])
        elif func.namespace not in TORCH_NAMESPACES:
            self.unseen.add(str(func.overloadpacket).replace(".", "::"))
        elif torch.Tag.pointwise in func.tags and name not in COPIES and isinstance(output, Tensor):
            self.flops += output.numel()
        return output
