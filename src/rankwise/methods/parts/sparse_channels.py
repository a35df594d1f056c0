"""Linear layers that compute a subset of their channels, and who chooses it: a cheap estimate of what the channels will be.

Legend: N tokens, m and n rows and columns of a weight W, r rank of the estimate, s sparsity, d channels, dh width of a head.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

POWER_ITERATIONS = 2


@dataclass
class Mode:
    """What all layers of a model share: whether they are sparse now, and which tokens of the batch are."""

    active: bool = False
    exact_gradients: bool = True
    context: Tensor | None = None  # indices into the N tokens; None: all of them
    outputs: Tensor | None = None  # the other tokens, which stay dense


def linear_rows(
    x: Tensor,  # (N, n)
    weight: Tensor,  # (m, n)
    bias: Tensor | None,
    index: Tensor,  # of output channels
) -> Tensor:
    """W x + b in the output channels of `index`, zero in the others."""
    kept = functional.linear(
        x, weight.index_select(0, index), None if bias is None else bias[index]
    )
    return kept.new_zeros(len(x), len(weight)).index_copy(1, index, kept)


def linear_columns(
    x: Tensor,  # (N, n)
    weight: Tensor,  # (m, n)
    bias: Tensor | None,
    index: Tensor,  # of input channels
) -> Tensor:
    """W x + b as if the input channels outside `index` were zero."""
    return functional.linear(x.index_select(1, index), weight.index_select(1, index), bias)


def strongest(scores: Tensor, sparsity: float) -> Tensor:
    """Indices of the (1 - s) d channels, at least one, with the largest scores."""
    return scores.topk(max(1, round((1 - sparsity) * len(scores)))).indices


def key_scores(
    query: Tensor,  # (N, heads * dh)
    key: Tensor,  # (N, key heads * dh)
    width: int,
) -> Tensor:
    """||K_j|| ||Q_j|| of every key channel j, its query channels being those of all heads that share the key head."""
    norms = torch.linalg.vector_norm(query, dim=0).view(key.shape[1] // width, -1, width)
    return torch.linalg.vector_norm(key, dim=0) * torch.linalg.vector_norm(norms, dim=1).flatten()


def partners(index: Tensor, groups: int, width: int) -> Tensor:
    """Channels (h g + i) dh + c, i < g, of the query heads that share key head h, for key channels h dh + c."""
    heads = (index // width)[:, None] * groups + torch.arange(groups, device=index.device)
    return (heads * width + (index % width)[:, None]).flatten()


class ChannelLinear(nn.Linear):
    """A linear layer that in training, once its mode is active, computes the channels that were chosen for the batch."""

    def __init__(self, dense: nn.Linear, mode: Mode, cut: Callable):
        super().__init__(dense.in_features, dense.out_features, bias=False, device="meta")
        self.weight, self.bias = dense.weight, dense.bias
        self.mode, self.cut = mode, cut
        self.chooser: Attention | FeedForward | None = (
            None  # of the layer of a block that is called first
        )
        self.index: Tensor | None = None

    def fit(self, rank: int) -> None:
        """Keep a rank-r estimate of the weight, (m, r) and (r, n), by a randomized SVD; its shapes on the meta device."""
        m, n = self.weight.shape
        rank = min(rank, m, n)
        left, right = self.weight.new_empty(m, rank), self.weight.new_empty(rank, n)
        if not self.weight.is_meta:
            u, s, v = torch.svd_lowrank(self.weight.detach().float(), rank, POWER_ITERATIONS)
            left, right = (u * s.sqrt()).to(left.dtype), (v * s.sqrt()).mT.to(right.dtype)
        self.register_buffer("left", left.contiguous())
        self.register_buffer("right", right.contiguous())

    def estimate(self, x: Tensor) -> Tensor:  # (N, n) -> (N, m)
        """W x + b by the low-rank estimate of W."""
        return functional.linear(functional.linear(x, self.right), self.left, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.mode.active):
            return super().forward(x)
        flat, mode = x.flatten(0, -2), self.mode
        context = flat if mode.context is None else flat.index_select(0, mode.context)
        if self.chooser is not None:
            self.chooser.choose(context)
        sparse = self.cut(
            context if mode.exact_gradients else context.detach(),
            self.weight,
            self.bias,
            self.index,
        )
        if mode.context is not None:
            dense = super().forward(flat.index_select(0, mode.outputs))
            whole = sparse.new_zeros(len(flat), self.out_features)
            sparse = whole.index_copy(0, mode.context, sparse).index_copy(0, mode.outputs, dense)
        return sparse.unflatten(0, x.shape[:-1])

    def plain(self) -> nn.Linear:
        """The ordinary layer with the same parameters."""
        linear = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        linear.weight, linear.bias = self.weight, self.bias
        return linear


@dataclass(eq=False)
class FeedForward:
    """act(W_up x + b), or act(W_gate x) * W_up x: rows of gate and up and columns of down, by the estimated activation."""

    up: ChannelLinear
    down: ChannelLinear
    gate: ChannelLinear | None
    activation: Callable
    sparsity: float
    estimated: tuple[ChannelLinear, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.estimated = (self.up,) if self.gate is None else (self.gate, self.up)
        self.estimated[0].chooser = self

    def scores(self, x: Tensor) -> Tensor:
        """||act_j|| over the tokens, for every channel j."""
        first, *rest = (layer.estimate(x) for layer in self.estimated)
        estimate = self.activation(first)
        return torch.linalg.vector_norm(estimate * rest[0] if rest else estimate, dim=0)

    @torch.no_grad()
    def choose(self, x: Tensor) -> None:
        """Set the channels of every layer of the block for the tokens x."""
        index = strongest(self.scores(x), self.sparsity)
        for layer in (*self.estimated, self.down):
            layer.index = index


@dataclass(eq=False)
class Attention:
    """Rows of query and key by the estimated products; rows of value and columns of output by the estimated values."""

    query: ChannelLinear
    key: ChannelLinear
    value: ChannelLinear
    output: ChannelLinear
    heads: int
    sparsity: float

    def __post_init__(self) -> None:
        self.query.chooser = self
        self.estimated = (self.query, self.key, self.value)

    @torch.no_grad()
    def choose(self, x: Tensor) -> None:
        """Set the channels of every layer of the block for the tokens x."""
        width = self.query.out_features // self.heads
        groups = self.query.out_features // self.key.out_features
        query, key, value = (layer.estimate(x) for layer in self.estimated)
        self.key.index = strongest(key_scores(query, key, width), self.sparsity)
        self.value.index = strongest(torch.linalg.vector_norm(value, dim=0), self.sparsity)
        self.query.index = partners(self.key.index, groups, width)
        self.output.index = partners(self.value.index, groups, width)
