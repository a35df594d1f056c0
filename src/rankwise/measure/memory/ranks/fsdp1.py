"""FSDP1: torch's FullyShardedDataParallel, whose units are flat tensors.

A unit is a layer, a module that an adapter adds (where the base is frozen: peft's
`fsdp_auto_wrap_policy`, and fsdp_qlora's), or the model without these. Its parameters are one flat
tensor, of which a process keeps its part (`fsdp1`) or all (`fsdp1_no_shard`, ShardingStrategy
NO_SHARD). In the order of torch's code:

- The model comes from the CPU unit by unit, the innermost first (`device_id`): parameters are
  moved, sent from the first process in buckets of 250 MiB (`sync_module_states`), and copied into
  the flat tensor. The process's part of that is copied, and all else is freed. The freed segments
  stay reserved, and few of a step's tensors fit into them.
- The first forward pass makes each unit's gathered tensor once and frees it.
- Forward: a unit is gathered before it computes and freed after it; the root stays until backward
  ends.
- Backward: a unit is gathered when the gradient of its output is there, and with it the unit whose
  forward pass ended before (BackwardPrefetch.BACKWARD_PRE, the default). It is freed when it has
  its gradients or, if it is frozen, when the gradient of its input is there.
- When all gradients of a unit are there, autograd joins them to a flat one. The process's part of
  their means is a new tensor, and the flat one is freed. Without shards means are made in place.
- A reentrant checkpoint around a frozen unit, as transformers' layers have it, keeps the input that
  it detaches, and the gradient of that, until the whole backward pass ends: a hook on the input
  (`register_multi_grad_hook`) refers to itself, and FSDP1 removes it only then
  (`keeps_unit_inputs`).
- With several micro-batches whole gradients stay until the last one's backward sends them
  (`no_sync`, as accelerate does).

Gathered tensors and parts of gradients are made in streams of their own, and CUDA's allocator keeps
the memory of streams apart. It takes a freed tensor for its stream again when the GPU is done with
it; the simulation takes it at once.

Source: torch.distributed.fsdp, _init_utils.py, _flat_param.py and _runtime_utils.py of torch 2.13,
whose steps are those of torch 2.2 (Zhao et al. 2023, arXiv 2304.11277). MixedPrecision is not
included.
"""

from rankwise.core.units import MIB
from rankwise.measure.memory.ranks.ddp import buckets
from rankwise.measure.memory.ranks.log import SHARED_STATE, Writer
from rankwise.measure.memory.ranks.notes import Parameter

ROOT = 0  # number of the part that is the model without its other units
SYNC_BUCKET = 250 * MIB  # PARAM_BROADCAST_BUCKET_SIZE
GATHERS, REDUCES = 1, 2  # streams beside the one in which the model computes


class Fsdp1(Writer):
    """The log of a process under FSDP1 that shards all (ShardingStrategy FULL_SHARD)."""

    shards = True

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._whole: dict[int, int] = {}  # part -> its gathered flat tensor
        self._order: list[int] = []  # of the parts whose forward pass has ended
        self._began: set[int] = set()  # parts whose backward has begun
        self._waiting: list[set[int]] = []  # by part: what trains and has no gradient yet
        self._part_of = {n: part for part, own in enumerate(self.notes.parts) for n in own}
        self._has_begun = False
        self._keeps_inputs = self.request.get("keeps_unit_inputs", False)

    def size(self, serial: int, kind: str) -> int:
        """State is shared, and what an optimizer makes while it steps."""
        size = super().size(serial, kind)
        is_shared = kind in SHARED_STATE or (self.updates and kind == "temporary")
        return self.share(size) if is_shared and self.shards else size

    def built(self) -> None:
        """Bring the model to the GPU, unit by unit."""
        self.drop({param.serial for param in self.notes.parameters})
        self.log.moved = len(self.log.events)
        for part in [*range(1, len(self.notes.parts)), ROOT]:
            if self.notes.parts[part]:
                self._wrap(part)

    def _wrap(self, part: int) -> None:
        """Move the parameters of a unit, send them, and make them one flat tensor."""
        params = self._params(part)
        moved = [self.log.add(param.size, "weights") for param in params]
        # NCCL reads the buckets in a stream of its own, so the allocator has them back only when
        # the GPU is done with them: when the next unit is copied from the host, which waits for it.
        # A bucket of one tensor is that tensor (flatten_dense_tensors).
        joined = [bucket for bucket in buckets(params, [SYNC_BUCKET]) if len(bucket) > 1]
        sent = [self.log.add(_bytes(bucket), "temporary") for bucket in joined]
        whole = _bytes(params)
        flat = self.log.add(whole, "temporary" if self.shards else "weights")
        if self.shards:
            self.log.add(self.share(whole), "weights")
            self.log.free(flat)
        for serial in sent:
            self.log.free(serial)
        for serial in moved:
            self.log.free(serial)

    def phase_begins(self) -> None:
        """Make what is gathered once before the first pass, and expect all gradients."""
        is_forward = self.phase.endswith("forward") or self.phase == "evaluation"
        if is_forward and self.shards and not self._has_begun:
            for part in range(len(self.notes.parts)):
                self.log.free(self.log.add(self._gathered_size(part), "temporary"))
        if is_forward:
            self._has_begun = True
            self._order.clear()
        self._began.clear()
        parameters = self.notes.parameters
        self._waiting = [{n for n in own if parameters[n].trains} for own in self.notes.parts]

    def forward_begins(self, part: int) -> None:
        """Gather the unit, also where it is computed again within backward."""
        self._gather(part)

    def forward_ends(self, part: int) -> None:
        """Free the whole parameters, but not the root's."""
        if self.phase.endswith("backward"):
            return
        if part != ROOT:
            self._free(part)
        self._order.append(part)

    def backward_begins(self, part: int) -> None:
        """Gather the unit, and the one whose forward pass ended before."""
        if part in self._began:
            return
        self._began.add(part)
        self._gather(part)
        place = self._order.index(part)
        if place > 0:
            self._gather(self._order[place - 1])

    def backward_ends(self, part: int) -> None:
        """The gradient of a unit's input is there: a frozen unit is freed."""
        if not self._trains(part):
            self._free(part)

    def gradient(self, number: int) -> None:
        """When all gradients of a unit are there, join them and send them."""
        part = self._part_of[number]
        self._waiting[part].discard(number)
        if not self._waiting[part] and self.is_last_micro_batch:
            self._reduce(part)

    def phase_ends(self) -> None:
        """After backward all gradients are sent, and nothing is gathered."""
        if not self.phase.endswith("backward"):
            return
        for part in range(len(self.notes.parts)):
            if self.is_last_micro_batch:
                self._reduce(part)
            self._free(part)
        self.release()

    def input(self, part: int, serial: int) -> None:
        """Keep what the hook on a frozen unit refers to."""
        if self._keeps_inputs and part != ROOT and not self._trains(part):
            self.keep(serial)

    def _reduce(self, part: int) -> None:
        """Make a flat tensor of a unit's gradients, and of that the process's part of the means."""
        arrived = {
            self.gradients[n]
            for n in self.notes.parts[part]
            if n in self.gradients and self.is_alive(self.gradients[n])
        }
        if not arrived:
            return
        whole = _bytes([param for param in self._params(part) if param.trains])
        self._free(part)
        flat = self.log.add(whole, "gradients")
        self.drop(arrived)
        if self.shards:
            own = self.log.add(self.share(whole), "gradients", stream=REDUCES)
            self.copy_of_gloo(whole)
            self.log.free(flat)
            flat = own
        self.stand_for(arrived, flat)

    def _params(self, part: int) -> list[Parameter]:
        return [self.notes.parameters[number] for number in self.notes.parts[part]]

    def _trains(self, part: int) -> bool:
        return any(param.trains for param in self._params(part))

    def _gather(self, part: int) -> None:
        if self.shards and part not in self._whole and self.notes.parts[part]:
            size = self._gathered_size(part)
            self._whole[part] = self.log.add(size, "temporary", stream=GATHERS)
            self.copy_of_gloo(size)

    def _free(self, part: int) -> None:
        if part in self._whole:
            self.log.free(self._whole.pop(part))

    def _gathered_size(self, part: int) -> int:
        """Bytes of a unit's flat tensor, with its padding."""
        return self.count * self.share(_bytes(self._params(part)))


class Fsdp1NoShard(Fsdp1):
    """The log of a process under FSDP1 that holds the whole model (ShardingStrategy NO_SHARD)."""

    shards = False


def _bytes(params: list[Parameter]) -> int:
    return sum(param.size for param in params)
