"""Parts of the optimizers: step loop, inner rules, subspaces, bases, gradient release."""
