"""Figure: loss on the selection slice by epoch, the mean over seeds in a band from the lowest to the highest seed."""

import pandas as pd
from matplotlib.figure import Figure

from rankwise.report import courses, style

LOSS = courses.Quantity("selection_loss_nats", "selection loss (nats)")


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Panels by model and dataset, from `tables["history"]`; runs that failed, from `["runs"]`, are named below.

    Raises:
        ValueError: there is no history, at all or for a panel of the runs; names the cells.
    """
    return courses.draw("loss", tables, labels, (LOSS,))
