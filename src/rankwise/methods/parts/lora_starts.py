"""Where LoRA's factors may start: from statistics of batches, or from the error of quantization.

Letters: W (m, n) is a matrix to adapt, A (r, n) and B (m, r) are its factors, s is LoRA's scale:
W' = W + s B A. started_lora.py names the papers.
"""

from collections.abc import Callable, Iterable

import torch
from peft import LoraConfig
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.utils.incremental_pca import IncrementalPCA
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from rankwise.core.errors import Unsupported

Batches = Iterable[dict[str, Tensor]]
Factors = dict[str, tuple[Tensor, Tensor]]


def dense_weight(module: nn.Module) -> Tensor:  # (m, n)
    """W of a dense layer, detached; Conv1D keeps it transposed."""
    weight = module.weight.detach()
    return weight.mT if isinstance(module, Conv1D) else weight


# EVA ----------------------------------------------------------------------------------------------


class InputComponents:
    """The principal components of what goes into some layers, batch by batch.

    Layers that read the same tensor one after the other (query, key, value) share one computation.

    Args:
        rank: how many components.
    """

    def __init__(self, rank: int):
        self.rank = rank
        self.mask: Tensor | None = None  # (examples, tokens), of the current batch
        self.by_layer: dict[str, IncrementalPCA] = {}
        self._last: tuple[Tensor, str] | None = None  # the last input, and which layer read it
        self.most_rows = 0  # in one batch

    def hook(self, name: str) -> Callable:
        """A forward pre-hook for the layer `name`."""

        def see(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0]
            if self._last is not None and self._last[0] is x:
                self.by_layer[name] = self.by_layer[self._last[1]]
                return
            self._last = x, name
            self._add(name, x)

        return see

    def _add(self, name: str, x: Tensor) -> None:
        """Add the tokens of one batch that are no padding."""
        rows = x[self.mask] if x.ndim == 3 else x  # (tokens, n)
        self.most_rows = max(self.most_rows, len(rows))
        pca = self.by_layer.get(name)
        if pca is None:
            sketch = min(2 * self.rank, x.shape[-1], len(rows))
            pca = IncrementalPCA(self.rank, lowrank=True, lowrank_q=sketch, lowrank_seed=42)
            self.by_layer[name] = pca
        if len(rows) >= self.rank:
            pca.lowrank_q = max(self.rank, min(2 * self.rank, x.shape[-1], len(rows)))
            pca.partial_fit(rows.float())

    def forget_batch(self) -> None:
        """Called between batches: an input is kept no longer than its forward pass."""
        self._last = None


@torch.no_grad()
def eva(base: nn.Module, targets: dict[str, nn.Module], batches: Batches, rank: int) -> Factors:
    """A is the first r principal components of the layer's inputs; B is zero.

    Args:
        base: the dense base.
        targets: the matrices to adapt, by name.
        batches: training batches.
        rank: r.

    Raises:
        Unsupported: no batch has as many tokens as the rank.
    """
    inputs = InputComponents(rank)
    handles = [m.register_forward_pre_hook(inputs.hook(name)) for name, m in targets.items()]
    base.eval()
    for batch in batches:
        inputs.mask = batch["attention_mask"].bool()
        base(**batch)
        inputs.forget_batch()
    for handle in handles:
        handle.remove()
    if not all(hasattr(pca, "components_") for pca in inputs.by_layer.values()):
        raise Unsupported(
            f"start eva: got batches of at most {inputs.most_rows} tokens, allowed: as many as the "
            f"rank, {rank}; set a larger batch_size or a lower rank"
        )
    factors = {}
    for name, module in targets.items():
        rows = dense_weight(module).shape[0]
        a = inputs.by_layer[name].components_.float().contiguous()
        factors[name] = a, a.new_zeros(rows, rank)
    return factors


# CorDA --------------------------------------------------------------------------------------------


@torch.no_grad()
def corda(
    base: nn.Module,
    targets: dict[str, nn.Module],
    batches: Batches,
    rank: int,
    scale: float,
    mode: str,
) -> Factors:
    """B A is the part of W that matters most, or least, for the covariance C of its inputs.

    U S V' is the SVD of W C; then B = U sqrt(S / s) and A = sqrt(S / s) V' C^-1 with the r largest
    (ipm) or smallest (kpm) singular values.

    Args:
        base: the dense base.
        targets: the matrices to adapt, by name.
        batches: training batches; the model reads their examples one by one, without padding.
        rank: r.
        scale: s.
        mode: ipm or kpm.

    Raises:
        Unsupported: a matrix reads one vector a text, so peft finds no covariance over tokens.
    """
    config = LoraConfig(
        r=rank,
        target_modules=set(targets),
        init_lora_weights="corda",
        corda_config=CordaConfig(corda_method=mode),
    )

    def read_examples() -> None:
        for batch in batches:
            for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
                ids = row[mask.bool()][None]  # (1, tokens)
                base(input_ids=ids, attention_mask=torch.ones_like(ids))

    handles = [m.register_forward_pre_hook(_tokens_only(name)) for name, m in targets.items()]
    try:
        preprocess_corda(base, config, read_examples)
    finally:
        for handle in handles:
            handle.remove()
    factors = {}
    for name, module in targets.items():
        root = (module.eigens.S_WC / scale).sqrt()  # (r)
        factors[name] = (root[:, None] * module.eigens.V_WC.mT, module.eigens.U_WC * root)
        del module.eigens
    return factors


def _tokens_only(name: str) -> Callable:
    """A forward pre-hook that refuses an input without a dimension of tokens."""

    def see(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].ndim == 2:
            raise Unsupported(
                f"start corda needs a covariance over tokens, and {name} reads one vector a text; "
                "leave it out of targets"
            )

    return see


# LoRA-GA ------------------------------------------------------------------------------------------


def lora_ga(
    base: nn.Module,
    targets: dict[str, nn.Module],
    batches: Batches,
    rank: int,
    gamma: float,
) -> Factors:
    """A has the gradient's right singular vectors 1 to r, B its left ones r + 1 to 2 r.

    Both are scaled by m^(1/4) / sqrt(gamma), the paper's stable scale.

    Args:
        base: the dense base.
        targets: the matrices to adapt, by name.
        batches: training batches.
        rank: r.
        gamma: the paper's gamma, as in the authors' code.
    """
    factors = {}
    for name, gradient in mean_gradients(base, targets, batches).items():
        # As in the authors' code; the sketch is not wider than the matrix.
        sketch = min(4 * rank, *gradient.shape)
        u, _, v = torch.svd_lowrank(gradient, q=sketch, niter=4)
        scale = gradient.shape[0] ** 0.25 / gamma**0.5
        factors[name] = scale * v[:, :rank].mT, scale * u[:, rank : 2 * rank]
    return factors


def mean_gradients(
    base: nn.Module, targets: dict[str, nn.Module], batches: Batches
) -> dict[str, Tensor]:
    """The loss's gradient for each W (m, n), averaged over the batches, in train mode.

    Each gradient goes to the host inside backward, so the device holds one of them at a time.

    Args:
        base: the dense base; its weights are not changed.
        targets: the matrices, by name.
        batches: training batches.
    """
    trained = {name: param.requires_grad for name, param in base.named_parameters()}
    base.requires_grad_(False)
    sums: dict[str, Tensor] = {}

    def collect(name: str) -> Callable[[Tensor], None]:
        def add(param: Tensor) -> None:
            gradient = param.grad.cpu()
            sums[name] = sums[name].add_(gradient) if name in sums else gradient
            param.grad = None

        return add

    handles = []
    for name, module in targets.items():
        module.weight.requires_grad_(True)
        handles.append(module.weight.register_post_accumulate_grad_hook(collect(name)))
    base.train()
    count = 0
    for batch in batches:
        base(**batch).loss.backward()
        count += 1
    for handle in handles:
        handle.remove()
    for name, param in base.named_parameters():
        param.requires_grad_(trained[name])
    gradients = {}
    for name, module in targets.items():
        gradient = sums[name].float() / count
        gradients[name] = gradient.mT if isinstance(module, Conv1D) else gradient
    return gradients


# LoftQ --------------------------------------------------------------------------------------------


def loftq(
    weight: Tensor,  # (m, n)
    rank: int,
    scale: float,
    iterations: int,
    stored: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """The matrix to quantize, A, and B: s B A is the best rank-r fit of the quantization's error.

        Q <- quantize(W - s B A)
        s B A <- the rank-r part of the SVD of W - Q; each factor gets the root of S / s

    Args:
        weight: W.
        rank: r.
        scale: s.
        iterations: how often; B A starts at zero.
        stored: quantizes a matrix, and gives what its codes stand for.

    Returns:
        W - s B A of the iteration before the last, whose codes are Q; A (r, n); B (m, r).
    """
    to_quantize = weight
    for iteration in range(iterations):
        u, s, vt = torch.linalg.svd(weight - stored(to_quantize), full_matrices=False)
        root = (s[:rank] / scale).sqrt()
        a, b = root[:, None] * vt[:rank], u[:, :rank] * root
        if iteration < iterations - 1:
            to_quantize = weight - scale * (b @ a)
    return to_quantize, a, b
