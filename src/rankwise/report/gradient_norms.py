"""Figure: the gradient's norm before clipping, a mean over the updates since the last evaluation, by epoch."""

import pandas as pd
from matplotlib.figure import Figure

from rankwise.report import courses, style

NORM = courses.Quantity("gradient_norm", "gradient norm (log scale)", log=True)


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Panels by model and dataset, from `tables["history"]`; runs that failed, from `["runs"]`, are named below.

    Norms compare within a method: another method's gradient has other entries and more or fewer of them.

    Raises:
        ValueError: there is no history, at all or for a panel of the runs, or none with a norm; names the cells.
    """
    return courses.draw("gradient_norms", tables, labels, (NORM,))
