"""How one model trains in several processes: what each of them holds, and how gradients meet.

- DDP (torch's DistributedDataParallel): each process holds the whole model, and gradients are
  averaged while backward computes them.
- Averaged afterwards, where DDP cannot be used: blocks whose gradients are switched on and off,
  methods that change parameters between updates, models of which a part is not used. An optimizer
  with `release` averages gradients in its own hooks, and one that asks for losses alone has none.
- FSDP2 (torch's fully_shard): each process holds its share of the rows of every parameter, of its
  gradient and of its optimizer state. A layer is gathered for as long as it computes.

Whatever the way, gradients are means over the processes.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from rankwise.methods.parts.base import Method
from rankwise.optim.parts.processes import average_, process_count
from rankwise.optim.parts.waiting import trains

FSDP2 = "fsdp2"


class Distributed:
    """A model on its device, and how its processes train it.

    Args:
        model: Already adapted, on the CPU.
        accelerator: Gives the device and the precision.
        sharding: `ddp` or `fsdp2`, as in a schedule.

    Attributes:
        model: The adapted model. Methods, evaluations and checkpoints use it.
        called: What the forward passes of training call: the model, or DDP around it.
        is_sharded: Whether a process holds a share of each parameter.
    """

    def __init__(self, model: nn.Module, accelerator: Accelerator, sharding: str = "ddp"):
        self.is_sharded = sharding == FSDP2 and accelerator.num_processes > 1
        self.device = accelerator.device
        if self.is_sharded:
            _shard(model, accelerator)
        # For evaluation, accelerate moves the model and sets its precision, and adds no DDP.
        self.model = accelerator.prepare_model(model, evaluation_mode=True)
        self.called = self.model
        self._averages = False

    def train_with(
        self, optimizer: torch.optim.Optimizer, method: Method, batch: dict[str, Tensor]
    ) -> None:
        """Choose how gradients meet. Called once, before the first update.

        Args:
            optimizer: Over the trainable parameters; not wrapped by accelerate.
            method: It has adapted the model.
            batch: A small one, by which it is found out whether all parameters get a gradient.
        """
        if process_count() == 1 or self.is_sharded:
            return
        if getattr(optimizer, "released", False) or getattr(optimizer, "FORWARD_ONLY", False):
            return
        changes_parameters = type(method).after_step is not Method.after_step
        is_by_block = getattr(optimizer, "BY_BLOCK", False)
        # DDP would wait for the gradient of a parameter that the task does not use.
        if changes_parameters or is_by_block or not self._uses_all_parameters(batch):
            self._averages = True
            return
        on_gpu = self.device.type == "cuda"
        devices = [self.device.index] if on_gpu else None
        self.called = DistributedDataParallel(self.model, device_ids=devices)

    def _uses_all_parameters(self, batch: dict[str, Tensor]) -> bool:
        """Whether every parameter that trains gets a gradient; leaves no trace."""
        on_device = {name: values.to(self.device) for name, values in batch.items()}
        params = [param for param in self.model.parameters() if param.requires_grad]
        gpus = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(gpus):
            output = self.model(**on_device)
            # Without logits, the loss is in chunks.
            used = output.loss if output.logits is None else output.logits.sum()
            gradients = torch.autograd.grad(used, params, allow_unused=True)
        return all(gradient is not None for gradient in gradients)

    def collecting(self, is_last: bool) -> AbstractContextManager:
        """Within, a micro-batch adds to the gradients; only the last one of a window sends them."""
        if is_last:
            return nullcontext()
        if self.is_sharded:
            return self._unsent()
        return self.called.no_sync() if self.called is not self.model else nullcontext()

    @contextmanager
    def _unsent(self):
        self.model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.model.set_requires_gradient_sync(True)

    def end_backward(self) -> None:
        """Called after the last micro-batch of a window: average what nothing else averages."""
        if not self._averages:
            return
        params = [param for param in self.model.parameters() if param.requires_grad]
        # A part of the model may be used by the rows of some processes only.
        counts = torch.tensor([int(param.grad is not None) for param in params])
        distributed.all_reduce(counts)
        for param, count in zip(params, counts.tolist(), strict=True):
            if count and param.grad is None:
                param.grad = torch.zeros_like(param)
            if count:
                average_(param.grad)


def _shard(model: nn.Module, accelerator: Accelerator) -> None:
    """Let this process hold its share of every parameter; layer by layer, so that a GPU never
    holds the whole model.

    A layer is an element of an outermost nn.ModuleList; the rest of the model is gathered as one.
    """
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    lists = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    for name in lists:
        if any(name.startswith(f"{other}.") for other in lists):
            continue
        for layer in model.get_submodule(name):
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    # By default the root stays gathered after a forward pass, as if backward always followed.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


# Tensors that may be shards -----------------------------------------------------------------------


def own(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: its rows of a shard, sharing memory, or all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The 2-norms of whole tensors, as torch's clipping computes them."""
    parts = torch._foreach_norm([own(tensor) for tensor in tensors]) if tensors else ()
    if not any(isinstance(tensor, DTensor) for tensor in tensors):
        return list(parts)
    squares = torch.stack(list(parts)).square()
    distributed.all_reduce(squares)
    return list(squares.sqrt())


def any_is_bad(is_bad: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Whether the rows of any process are bad.

    Args:
        is_bad: For each of `tensors`, whether what this process holds is bad.
        tensors: Whole tensors or shards.
    """
    if any(isinstance(tensor, DTensor) for tensor in tensors):
        counts = is_bad.to(torch.int32)
        distributed.all_reduce(counts)
        return counts > 0
    return is_bad


def clip_(params: Sequence[Tensor], limit: float, norm: Tensor) -> None:
    """Scale gradients to a joint norm of at most `limit`.

    Args:
        params: Those without a gradient are left out.
        limit: The largest norm.
        norm: The joint norm now.
    """
    if not any(isinstance(param, DTensor) for param in params):
        torch.nn.utils.clip_grads_with_norm_(params, limit, norm)
        return
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)  # as torch's clipping
    grads = [own(param.grad) for param in params if param.grad is not None]
    torch._foreach_mul_(grads, factor)


def own_state(state: object) -> object:
    """A state dict with what this process holds of each tensor."""
    return torch.utils._pytree.tree_map_only(Tensor, own, state)


@torch.no_grad()
def restore_model(model: nn.Module, saved: dict[str, Tensor]) -> None:
    """Copy saved values, as `own_state` gave them, into a model's parameters and buffers."""
    for name, value in model.state_dict().items():
        if name in saved:
            own(value).copy_(saved[name])


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict) -> None:
    """Load a state dict, as `own_state` gave it, into an optimizer over shards."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    state = {}
    for number, param in zip(numbers, params, strict=True):
        values = saved["state"].get(number, {})
        state[number] = {name: _like(param, value) for name, value in values.items()}
    optimizer.load_state_dict({**saved, "state": state})


def _like(param: Tensor, value: object) -> object:
    """A part of an optimizer's state as a shard, if it has the shape of the parameter's rows."""
    is_part = isinstance(param, DTensor) and isinstance(value, Tensor) and value.ndim == param.ndim
    if not is_part or value.shape != own(param).shape:
        return value
    return DTensor.from_local(
        value.to(param.device),
        param.device_mesh,
        param.placements,
        shape=param.shape,
        stride=param.stride(),
    )


def trained_values(model: nn.Module) -> dict[str, Tensor]:
    """What this process holds of the trainable parameters, copied to the CPU, by name."""
    return {
        name: own(param.detach()).cpu().clone()
        for name, param in model.named_parameters()
        if trains(param)
    }
