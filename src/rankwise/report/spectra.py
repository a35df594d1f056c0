"""Figure: sparsity and effective ranks by epoch, of the methods that have them."""

import pandas as pd
from matplotlib.figure import Figure

from rankwise.report import courses, style

QUANTITIES = (
    courses.Quantity("sparsity_fraction", "zeros in the factors (%)", factor=100, common=False),
    courses.Quantity("product_effective_rank", "effective rank of B A", common=False),
    courses.Quantity("effective_rank", "basis vectors in use", common=False),
)


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Panels by model, dataset and quantity, from `tables["history"]`; runs that failed, from `["runs"]`, are named below.

    The effective rank of B A is e to the entropy of its normalised singular values, the mean over layers; basis vectors in use
    are those that an adaptive projected optimizer keeps, the mean over matrices.

    Raises:
        ValueError: there is no history, at all or for a panel of the runs, or none with any of the three; names the cells.
    """
    return courses.draw("spectra", tables, labels, QUANTITIES)
