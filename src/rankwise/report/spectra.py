"""Figure: sparsity and effective ranks by epoch, for the methods that report them."""

import pandas as pd
from matplotlib.figure import Figure

from rankwise.report import by_epoch, style

QUANTITIES = (
    by_epoch.Quantity("sparsity_fraction", "zeros in the factors (%)", factor=100, common=False),
    by_epoch.Quantity("product_effective_rank", "effective rank of B A", common=False),
    by_epoch.Quantity("effective_rank", "basis vectors in use", common=False),
)


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Draw panels by model, dataset and quantity, from `history`; failed runs are named below.

    The effective rank of B A is e to the power of the entropy of its normalised singular values
    (Roy and Vetterli 2007), averaged over layers. The basis vectors in use are the ones that an
    adaptive projected optimizer keeps, averaged over matrices.

    Raises:
        ValueError: There is no history for the runs of a panel, or none with any of the three
            quantities. The message names the cells.
    """
    return by_epoch.draw("spectra", tables, labels, QUANTITIES)
