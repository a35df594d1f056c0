"""Figure: loss on the selection slice by epoch, the mean and the range of the seeds."""

import pandas as pd
from matplotlib.figure import Figure

from rankwise.report import by_epoch, style

LOSS = by_epoch.Quantity("selection_loss_nats", "selection loss (nats)")


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Draw panels by model and dataset, from `history`; failed runs, from `runs`, are named below.

    Raises:
        ValueError: There is no history for the runs of a panel. The message names the cells.
    """
    return by_epoch.draw("loss", tables, labels, (LOSS,))
