"""Figure: the gradient's norm before clipping by epoch.

Each value is a mean over the updates since the last evaluation.
"""

import pandas as pd
from matplotlib.figure import Figure

from rankwise.report import by_epoch, style

NORM = by_epoch.Quantity("gradient_norm", "gradient norm (log scale)", log=True)


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Draw panels by model and dataset, from `history`; failed runs, from `runs`, are named below.

    Norms can be compared within a method only: each method trains its own entries, and so its
    gradient has its own length.

    Raises:
        ValueError: There is no history for the runs of a panel, or none with a norm. The message
            names the cells.
    """
    return by_epoch.draw("gradient_norms", tables, labels, (NORM,))
