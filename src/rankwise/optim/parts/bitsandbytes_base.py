"""The base of optimizers that bitsandbytes implements: checks, allocation ahead, and copies."""

import bitsandbytes
from torch import Tensor

from rankwise.optim.parts.checked import Checked

# Registries that all optimizers of a process share; a copy uses those of its own process.
REGISTRIES = {
    "mng": bitsandbytes.optim.GlobalOptimManager,
    "page_mng": bitsandbytes.functional.GlobalPageManager,
}


class BitsandbytesBase(Checked):
    """Mixin in front of an optimizer of bitsandbytes."""

    HALF = True  # the moments are fp32 or quantized, and the arithmetic is fp32

    def allocate(self) -> None:
        """Allocate the state of every parameter now, rather than at its first step."""
        for group_index, group in enumerate(self.param_groups):
            for param_index, param in enumerate(group["params"]):
                if not self.state[param]:
                    self.init_state(group, param, group_index, param_index)

    def update_step(self, group: dict, p: Tensor, gindex: int, pindex: int) -> None:
        """Step one parameter; its names are bitsandbytes'.

        Raises:
            RuntimeError: the gradient is sparse.
        """
        self.refuse_sparse(p.grad)
        super().update_step(group, p, gindex, pindex)

    def __getstate__(self) -> dict:
        """Return what a copy or a pickle keeps: torch's contents, and bitsandbytes' settings."""
        state = {"optim_bits_settings": vars(self.args)}
        for name in ("initialized", "name2qmap", "is_paged", "non_castable_tensor_keys"):
            state[name] = getattr(self, name)
        return {**super().__getstate__(), "optimizer_name": self.optimizer_name, **state}

    def __setstate__(self, state: dict) -> None:
        contents = dict(state)
        if "optim_bits_settings" in contents:  # a copy, rather than a state dict that is loaded
            self.args = bitsandbytes.optim.optimizer.MockArgs(contents.pop("optim_bits_settings"))
            for name, registry in REGISTRIES.items():
                setattr(self, name, registry.get_instance())
        super().__setstate__(contents)
