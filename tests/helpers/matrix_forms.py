"""What the types of peft add to the FLOPs of one matrix (m, n) in forward, in plain arithmetic.

T tokens, rank r, two FLOPs a multiply-add. Matrix products alone count. Fourier transforms,
gathers, inverses, and products by element count nothing, as in torch's FlopCounterMode. Where peft
computes more or less than a paper's equation, the form has the products that peft needs, and its
docstring says why. Nothing here calls the code under test.
"""

from math import isqrt

from helpers.conformance import LENGTH, PROFILE_BATCH, RANK

TOKENS = PROFILE_BATCH * LENGTH


def dense(m: int, n: int) -> int:
    """W x."""
    return 2 * TOKENS * m * n


def pair(m: int, n: int, r: int = RANK) -> int:
    """B (A x)."""
    return 2 * TOKENS * r * (m + n)


def formed(m: int, n: int, r: int = RANK) -> int:
    """The matrix B A."""
    return 2 * m * n * r


# Types of peft -----------------------------------------------------------------------------------


def nothing(_m: int, _n: int) -> int:
    """Vectors, rows of the embedding, or entries of W train, which needs no product."""
    return 0


def boft(_m: int, n: int) -> int:
    """Liu et al. 2023: s W (R x), with R x beside the base's product.

    peft forms R (n, n) from blocks in three products of square matrices: with the permutation on
    either side, and with the identity. Its inverses (Cayley) are no products.
    """
    return 3 * 2 * n**3 + 2 * TOKENS * n**2


def c3a(m: int, n: int) -> int:
    """Chen et al. 2024: at each of r frequencies a product of (m / r, n / r).

    peft transforms to r frequencies, not to half of them. A complex product counts as one product.
    """
    return RANK * 2 * TOKENS * (m // RANK) * (n // RANK)


def deft(m: int, n: int) -> int:
    """DEFT 2025: P (R x) - P (relu(P)' (W x)), where W x is the base's product."""
    return pair(m, n) + pair(m, m)


def fourierft(m: int, n: int) -> int:
    """Gao et al. 2024, eq. 2-4: the update's product beside W x; a transform forms the update."""
    return dense(m, n)


def glora(m: int, n: int) -> int:
    """Chavan et al. 2023, eq. 2: (W + W * A + B) x, where A and B are products of factors.

    For the bias C (n, 1) is a product of factors as well, and W C follows. peft computes W x too,
    and takes it off again.
    """
    return 2 * formed(m, n) + 2 * n * RANK + 2 * m * n + dense(m, n)


def hra(m: int, n: int) -> int:
    """Yuan et al. 2024, eq. 1: W H, whose product with x takes the place of W x.

    peft forms H (n, n) from r reflections, each a product with a vector and an outer product,
    multiplies the identity by it, and then W.
    """
    return RANK * 2 * (2 * n**2) + 2 * n**3 + 2 * m * n**2


def lily(m: int, n: int) -> int:
    """Zhong et al. 2024, arXiv 2407.09946: B (A x), with B mixed from two by a router (2, r).

    peft mixes once a batch, so that there is one product with B.
    """
    router = 2 * TOKENS * RANK * 2
    mixture = 2 * 2 * RANK * m
    return pair(m, n) + router + mixture


def loha(m: int, n: int) -> int:
    """Hyeon-Woo et al. 2021: (B1 A1) * (B2 A2) is formed, and its product stands beside W x."""
    return 2 * formed(m, n) + dense(m, n)


def lokr(m: int, n: int) -> int:
    """Yeh et al. 2023: a Kronecker product, formed by element, times x beside W x.

    The first factor is as nearly square as the sides allow. The second is a product of factors of
    rank r only where r is below half its longer side.
    """
    rows, columns = m // smaller_divisor(m), n // smaller_divisor(n)
    is_factored = max(rows, columns) > 2 * RANK
    return dense(m, n) + (formed(rows, columns) if is_factored else 0)


def smaller_divisor(side: int) -> int:
    """The smaller of two nearly equal numbers whose product is `side`."""
    return max(number for number in range(1, isqrt(side) + 1) if side % number == 0)


def osf(m: int, n: int) -> int:
    """Nayak et al. 2025, eq. 1: all but r singular triplets train.

    peft keeps W x, adds the product of the trained triplets, and takes off that of their start.
    """
    return pair(m, n, 2 * (min(m, n) - RANK))


def peanut(m: int, n: int) -> int:
    """Zhong et al. 2024, arXiv 2410.01870, eq. 4: the product of B relu(A W) beside W x."""
    return 2 * formed(m, n) + dense(m, n)


def psoft(m: int, n: int) -> int:
    """Wu et al. 2025: B (R - I) A x beside W x; an inverse forms R (r, r)."""
    return pair(m, n) + 2 * TOKENS * RANK**2


def pvera(m: int, n: int) -> int:
    """Fillioux et al. 2025: A has 2 r rows, means and variances of what B takes."""
    return 2 * TOKENS * (2 * RANK * n + RANK * m)


def randlora(m: int, n: int) -> int:
    """Albert et al. 2025, eq. 3: bases of rank r, as many as give the whole rank of W."""
    bases = -(-min(m, n) // RANK)
    return pair(m, n, bases * RANK)


def tinylora(m: int, n: int) -> int:
    """Morris et al. 2026: B (R (A x)) of rank 2, where R (2, 2) sums r matrices v_i P_i."""
    return pair(m, n, 2) + 2 * TOKENS * 2 * 2 + 2 * RANK * 2 * 2


def waveft(m: int, n: int) -> int:
    """Bilican et al. 2025: the update's product beside W x.

    peft forms the update by a transposed convolution: each of four bands (m / 2, n / 2) times a
    filter (2, 2), which torch counts.
    """
    return dense(m, n) + 4 * (2 * (m // 2) * (n // 2) * 2 * 2)


PEFT = {
    **dict.fromkeys(
        ("BEFT", "LN_TUNING", "ROAD", "SUPERTUNING", "TRAINABLE_TOKENS"),
        nothing,
    ),
    # DeLoRA (Bini et al. 2025) scales A x, GraLoRA (Jung et al. 2025) has k^2 pairs of rank r / k,
    # and Uni-LoRA and VB-LoRA gather the entries of B and A. None of that is a product.
    **dict.fromkeys(("DELORA", "GRALORA", "UNILORA", "VBLORA"), pair),
    "BOFT": boft,
    "C3A": c3a,
    "DEFT": deft,
    "FOURIERFT": fourierft,
    "GLORA": glora,
    "HRA": hra,
    "LILY": lily,
    "LOHA": loha,
    "LOKR": lokr,
    "OSF": osf,
    "PEANUT": peanut,
    "PSOFT": psoft,
    "PVERA": pvera,
    "RANDLORA": randlora,
    "TINYLORA": tinylora,
    "WAVEFT": waveft,
}
