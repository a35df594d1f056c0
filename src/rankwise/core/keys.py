"""The key columns of every table, from coarse to fine. Standard library only.

A group is everything that is compared with one another: one model on one dataset. A curve is one
method at one rank in a group. A cell is one run of a curve: one random seed. The order is that of
the columns in the tables.

A variant of a method is a method of its own here: its name in the column `method` is `lora@fast`.
The column `variant` then has `fast`; a table without variants lacks it.
"""

GROUP = ["model", "dataset"]
CURVE_IN_GROUP = ["method", "rank"]  # names a curve where the model and dataset are known
CURVE = [*GROUP, *CURVE_IN_GROUP]
CELL = [*CURVE, "seed"]
VARIANT = "variant"
