"""An optimizer that knows nothing of Rankwise, and a method written for it."""
