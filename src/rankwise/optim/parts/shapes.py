"""How a gradient is turned and cut before it is projected, and what rank its projection has."""

from fractions import Fraction

from torch import Tensor


def as_projected(
    matrix: Tensor,  # (m, n), or (m, ...), which is seen as (m, rest)
    side: str,
    granularity: float = 1.0,
) -> Tensor:  # (s, L), sharing memory
    """View a matrix so that the side to be projected comes first.

    With granularity c a row of a tall matrix is cut in c pieces, or 1/c rows are joined; all pieces
    are projected alike. On the left side c consecutive rows are joined, so that one column of the
    view holds every c-th row of a column of the matrix (VLoRP: Wang et al. 2025, arXiv 2505.01744).

    Args:
        matrix: a weight or its gradient.
        side: what is projected: "short" or "long" side, "left" (rows), "right" (columns), or
            "both": first the rows of a tall matrix, or the columns of a wide one.
        granularity: c, which must divide the sides.

    Raises:
        ValueError: c does not divide the sides.
    """
    matrix = matrix.view(matrix.shape[0], -1)
    rows, columns = matrix.shape
    transposed = projects_columns(rows, columns, side)
    if granularity != 1:
        matrix = matrix.view(*cut_shape(rows, columns, granularity, transposed))
    return matrix.mT if transposed else matrix


def projects_columns(rows: int, columns: int, side: str) -> bool:
    """Whether `side` of a matrix means its columns.

    Args:
        rows: m.
        columns: n.
        side: as in `as_projected`. For a square matrix "short" means its columns, and "long" and
            "both" mean its rows.
    """
    if side == "short":
        return rows >= columns
    if side in ("long", "both"):
        return rows < columns
    return side == "right"


def cut_shape(rows: int, columns: int, granularity: float, transposed: bool) -> tuple[int, int]:
    """Return the shape of a matrix after its rows are cut in c pieces, or after c rows are joined.

    Args:
        rows: m.
        columns: n.
        granularity: c; below 1 it joins instead of cutting, and cuts instead of joining.
        transposed: the columns are projected, so rows are cut: (m c, n / c). Otherwise rows are
            joined: (m / c, n c).

    Returns:
        Rows and columns of the reshaped matrix.

    Raises:
        ValueError: the granularity does not divide the sides.
    """
    # A float such as 1/3 stands for the fraction, not for its nearest binary number.
    pieces = Fraction(granularity).limit_denominator(10**6)
    if not transposed:
        pieces = 1 / pieces
    new_rows, new_columns = rows * pieces, columns / pieces
    if new_rows.denominator != 1 or new_columns.denominator != 1:
        raise ValueError(
            f"granularity: got {granularity:g}, allowed: "
            f"a number that divides both sides of the {rows} x {columns} matrix"
        )
    return int(new_rows), int(new_columns)


def matrix_rank(size: int, other: int, rank: int, rule: str, reference_width: int) -> int:
    """Return the rank of one matrix, at least 1 and at most its shorter side.

    Args:
        size: s, the side that is projected.
        other: L, the other side.
        rank: r, in the units of `rule`.
        rule: "proportional" (r at a shorter side of `reference_width`), "percent" of the shorter
            side; every other rule takes r as it is.
        reference_width: shorter side at which a proportional rank is r.
    """
    shorter = min(size, other)
    if rule == "proportional":
        rank = rank * shorter // reference_width
    elif rule == "percent":
        rank = rank * shorter // 100
    return min(max(1, rank), shorter)
