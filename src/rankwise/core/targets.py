"""The values of a method's option `targets` that stand for many matrices.

Standard library only: planning and methods read it.
"""

ALL = "all"  # every matrix that the model's entry names
ALL_LINEAR = "all-linear"  # as in peft: every linear layer but the output layer and a new head
