"""FSDP2: shares of weights, gradients and optimizer state, and what is gathered at a time.

torch's fully_shard cuts each parameter along its first dimension. A part of the model (a layer, or
everything outside of the layers) is gathered before it computes and freed afterwards
(reshard_after_forward=True, as training/distribution.py asks for). In the order of torch's code:

- Forward: one flat buffer receives the shares of all processes. The whole parameters are copied out
  of it. It stays until the next part has its own, so that sending and copying overlap; the whole
  parameters are freed when the part has computed. The root stays until the whole model has.
- Backward: the buffer is freed as soon as it is copied. Then the buffer of the part that comes next
  is filled already (prefetch).
- After a part's backward its whole parameters are freed. Its whole gradients are copied into one
  buffer and freed; another buffer receives the process's share of their means, which is the
  gradient from then on. The first buffer stays until the next part has its gradients.
- With several micro-batches whole gradients stay, until the last one's backward sends them.
- What has no input with a gradient (the root; the first layer above a frozen embedding) sends its
  gradients after the backward pass.

The optimizer steps on shares, so its state and its temporary tensors are shares. Weights are
gathered in their own dtype: training has no MixedPrecisionPolicy, and `precision: bf16` casts
gathered weights.

Source: torch.distributed.fsdp, _fully_shard/_fsdp_param_group.py, _fsdp_collectives.py and
_fsdp_state.py of torch 2.13 (Zhao et al. 2023, arXiv 2304.11277, for FSDP itself).
"""

from rankwise.measure.memory.ranks.log import SHARED_STATE, Writer

ROOT = 0  # number of the part that is the model without its layers


class Fsdp2(Writer):
    """The log of a process under FSDP2."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._flat: dict[int, int] = {}  # part -> its buffer, not copied out yet
        self._whole: dict[int, list[int]] = {}  # part -> its whole parameters
        self._kept: int | None = None  # the buffer of the part before, in a forward pass
        self._sent: int | None = None  # the buffer of the gradients that were sent last
        self._order: list[int] = []  # of the parts whose forward pass has ended
        self._began: set[int] = set()  # parts whose backward has begun
        self._ended: set[int] = set()

    def size(self, serial: int, kind: str) -> int:
        """State is shared, and what an optimizer makes while it steps."""
        size = super().size(serial, kind)
        is_shared = kind in SHARED_STATE or (self.updates and kind == "temporary")
        return self.share(size) if is_shared else size

    def built(self) -> None:
        """A process builds the whole model before it keeps its share."""
        for param in self.notes.parameters:
            self.drop({param.serial})
            self.log.add(param.share(self.count), "weights")

    def phase_begins(self) -> None:
        """A pass starts with nothing gathered."""
        if self.phase.endswith("forward") or self.phase == "evaluation":
            self._order.clear()
        self._began.clear()
        self._ended.clear()

    def forward_begins(self, part: int) -> None:
        """Gather the part; computed again within backward, it is gathered already."""
        if self.phase.endswith("backward"):
            self._gather(part)
            self._copy_out(part)
            return
        self._gather(part)
        self._free_kept()
        self._copy_out(part, keep=True)

    def forward_ends(self, part: int) -> None:
        """Free the whole parameters; after the last part its buffer too."""
        if self.phase.endswith("backward"):
            return
        self._reshard(part)
        self._order.append(part)
        if part == ROOT:
            self._free_kept()

    def backward_begins(self, part: int) -> None:
        """Gather the part, and begin to gather the one that comes next."""
        if part in self._began:
            return
        self._began.add(part)
        self._gather(part)
        self._copy_out(part)
        place = self._order.index(part)
        if place > 0:
            self._gather(self._order[place - 1])

    def backward_ends(self, part: int) -> None:
        """Free the whole parameters and send the gradients."""
        if part in self._ended:
            return
        self._ended.add(part)
        self._reshard(part)
        if not self.is_last_micro_batch:
            return
        if self._sent is not None:
            self.log.free(self._sent)
            self._sent = None
        params = [n for n in self.notes.parts[part] if self._has_gradient(n)]
        if not params:
            return
        share = sum(self.notes.parameters[number].share(self.count) for number in params)
        self._sent = self.log.add(self.count * share, "temporary")
        self.replace([self.gradients[number] for number in params], share, "gradients")
        self.copy_of_gloo(self.count * share)

    def phase_ends(self) -> None:
        """End the backward of those parts that nothing has told to."""
        if not self.phase.endswith("backward"):
            return
        for part in range(len(self.notes.parts)):
            self.backward_ends(part)
        if self._sent is not None:
            self.log.free(self._sent)
            self._sent = None
        for part in list(self._flat):
            self.log.free(self._flat.pop(part))

    def _has_gradient(self, number: int) -> bool:
        return number in self.gradients and self.is_alive(self.gradients[number])

    def _gather(self, part: int) -> None:
        if part in self._flat or part in self._whole or not self.notes.parts[part]:
            return
        size = sum(self._sizes(part))
        self._flat[part] = self.log.add(size, "temporary")
        self.copy_of_gloo(size)

    def _copy_out(self, part: int, keep: bool = False) -> None:
        if part not in self._flat:
            return
        self._whole[part] = [self.log.add(size, "temporary") for size in self._sizes(part)]
        flat = self._flat.pop(part)
        if keep:
            self._kept = flat
        else:
            self.log.free(flat)

    def _free_kept(self) -> None:
        if self._kept is not None:
            self.log.free(self._kept)
            self._kept = None

    def _reshard(self, part: int) -> None:
        for serial in self._whole.pop(part, []):
            self.log.free(serial)

    def _sizes(self, part: int) -> list[int]:
        """Bytes of a part's whole parameters, with their padding."""
        params = [self.notes.parameters[number] for number in self.notes.parts[part]]
        return [self.count * param.share(self.count) for param in params]
