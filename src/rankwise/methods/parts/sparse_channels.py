"""Linear layers that compute a subset of their channels, and the blocks that choose the subset.

A block chooses by a cheap estimate of what its channels will be. contextual_sparse_lora.py says
where the rules come from.

Legend: N tokens, m and n rows and columns of a weight W, r rank of the estimate, s sparsity, d
channels, dh width of a head.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

POWER_ITERATIONS = 2


@dataclass
class Mode:
    """State that all layers of a model share.

    Attributes:
        active: the layers are sparse now.
        exact_gradients: the gradient of the input is that of what forward computed.
        context: indices of the sparse tokens among the N tokens of the batch; None for all of them.
        outputs: indices of the other tokens, which stay dense.
    """

    active: bool = False
    exact_gradients: bool = True
    context: Tensor | None = None
    outputs: Tensor | None = None


def linear_rows(
    x: Tensor,  # (N, n)
    weight: Tensor,  # (m, n)
    bias: Tensor | None,  # (m)
    index: Tensor,  # of output channels
) -> Tensor:  # (N, m)
    """W x + b in the output channels of `index`, zero in the others.

    Args:
        x: inputs, one row per token.
        weight: W.
        bias: b; in the other channels it is left out too.
        index: the output channels to compute, each at most once.
    """
    rows = weight.index_select(0, index)
    chosen = functional.linear(x, rows, None if bias is None else bias[index])
    return chosen.new_zeros(len(x), len(weight)).index_copy(1, index, chosen)


def linear_columns(
    x: Tensor,  # (N, n)
    weight: Tensor,  # (m, n)
    bias: Tensor | None,  # (m)
    index: Tensor,  # of input channels
) -> Tensor:  # (N, m)
    """W x + b as if the input channels outside `index` were zero.

    Args:
        x: inputs, one row per token.
        weight: W.
        bias: b, added in full.
        index: the input channels to use, each at most once.
    """
    return functional.linear(x.index_select(1, index), weight.index_select(1, index), bias)


def strongest(
    scores: Tensor,  # (d)
    sparsity: float,
) -> Tensor:
    """Indices of the (1 - s) d channels, at least one, with the largest scores.

    Args:
        scores: one per channel.
        sparsity: s, in [0, 1).

    Returns:
        Indices by descending score; their number is rounded.
    """
    count = max(1, round((1 - sparsity) * len(scores)))
    return scores.topk(count).indices


def key_scores(
    query: Tensor,  # (N, heads * dh)
    key: Tensor,  # (N, key heads * dh)
    width: int,
) -> Tensor:  # (key heads * dh)
    """||K_j|| ||Q_j|| of every key channel j.

    Its query channels are those of all heads that share the key head; their norm is joint.

    Args:
        query: (estimated) queries, one row per token.
        key: (estimated) keys, one row per token.
        width: dh.

    References:
        Khaki et al. 2025, SparseLoRA, arXiv 2506.16500.
    """
    query_norms = torch.linalg.vector_norm(query, dim=0)
    by_key_head = query_norms.view(key.shape[1] // width, -1, width)
    joint_norms = torch.linalg.vector_norm(by_key_head, dim=1).flatten()
    return torch.linalg.vector_norm(key, dim=0) * joint_norms


def partners(index: Tensor, groups: int, width: int) -> Tensor:
    """The query channels that belong to key channels.

    Args:
        index: key channels, h dh + c for channel c of key head h.
        groups: g, the number of query heads that share a key head.
        width: dh.

    Returns:
        The channels (h g + i) dh + c for all i < g.
    """
    head, channel = index // width, index % width
    query_heads = head[:, None] * groups + torch.arange(groups, device=index.device)
    return (query_heads * width + channel[:, None]).flatten()


class ChannelLinear(nn.Linear):
    """A linear layer that computes only the chosen channels in training, once its mode is active.

    Args:
        dense: the layer to replace; its parameters are taken over.
        mode: shared by all layers of the model.
        cut: linear_rows or linear_columns.
    """

    def __init__(self, dense: nn.Linear, mode: Mode, cut: Callable):
        super().__init__(dense.in_features, dense.out_features, bias=False, device="meta")
        self.weight, self.bias = dense.weight, dense.bias
        self.mode, self.cut = mode, cut
        # The block that chooses the channels, in the layer of it that is called first.
        self.chooser: Attention | FeedForward | None = None
        self.index: Tensor | None = None

    def fit(self, rank: int) -> None:
        """Keep a rank-r estimate of the weight by a randomized SVD; on the meta device its shapes.

        The singular values are shared out between the factors left (m, r) and right (r, n).
        """
        m, n = self.weight.shape
        rank = min(rank, m, n)
        left, right = self.weight.new_empty(m, rank), self.weight.new_empty(rank, n)
        if not self.weight.is_meta:
            u, s, v = torch.svd_lowrank(self.weight.detach().float(), rank, POWER_ITERATIONS)
            left = (u * s.sqrt()).to(left.dtype)
            right = (v * s.sqrt()).mT.to(right.dtype)
        self.register_buffer("left", left.contiguous())
        self.register_buffer("right", right.contiguous())

    def estimate(self, x: Tensor) -> Tensor:  # (N, n) -> (N, m)
        """W x + b by the low-rank estimate of W."""
        return functional.linear(functional.linear(x, self.right), self.left, self.bias)

    def forward(self, x: Tensor) -> Tensor:  # (..., n) -> (..., m)
        if not (self.training and self.mode.active):
            return super().forward(x)
        tokens, mode = x.flatten(0, -2), self.mode
        context = tokens if mode.context is None else tokens.index_select(0, mode.context)
        if self.chooser is not None:
            self.chooser.choose(context)
        inputs = context if mode.exact_gradients else context.detach()
        result = self.cut(inputs, self.weight, self.bias, self.index)
        if mode.context is not None:
            dense = super().forward(tokens.index_select(0, mode.outputs))
            result = (
                result.new_zeros(len(tokens), self.out_features)
                .index_copy(0, mode.context, result)
                .index_copy(0, mode.outputs, dense)
            )
        return result.unflatten(0, x.shape[:-1])

    def plain(self) -> nn.Linear:
        """An ordinary linear layer with the same parameters."""
        linear = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        linear.weight, linear.bias = self.weight, self.bias
        return linear


@dataclass(eq=False)
class FeedForward:
    """Chooses the channels of a feed-forward block, act(W_up x + b) or act(W_gate x) * W_up x.

    Rows of gate and up and columns of down are cut, by the estimated activation.
    """

    up: ChannelLinear
    down: ChannelLinear
    gate: ChannelLinear | None
    activation: Callable
    sparsity: float
    estimated: tuple[ChannelLinear, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.estimated = (self.up,) if self.gate is None else (self.gate, self.up)
        self.estimated[0].chooser = self

    def scores(self, x: Tensor) -> Tensor:  # (N, n) -> (d)
        """||act_j|| over the tokens, for every channel j."""
        activated = self.activation(self.estimated[0].estimate(x))
        if self.gate is not None:
            activated = activated * self.up.estimate(x)
        return torch.linalg.vector_norm(activated, dim=0)

    @torch.no_grad()
    def choose(self, x: Tensor) -> None:  # (N, n)
        """Set the channels of every layer of the block for the tokens x."""
        index = strongest(self.scores(x), self.sparsity)
        for layer in (*self.estimated, self.down):
            layer.index = index


@dataclass(eq=False)
class Attention:
    """Chooses the channels of an attention block.

    Rows of query and key are cut by the estimated products; rows of value and columns of output by
    the estimated values.
    """

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
    def choose(self, x: Tensor) -> None:  # (N, n)
        """Set the channels of every layer of the block for the tokens x."""
        width = self.query.out_features // self.heads
        groups = self.query.out_features // self.key.out_features
        query, key, value = (layer.estimate(x) for layer in self.estimated)
        self.key.index = strongest(key_scores(query, key, width), self.sparsity)
        self.value.index = strongest(torch.linalg.vector_norm(value, dim=0), self.sparsity)
        self.query.index = partners(self.key.index, groups, width)
        self.output.index = partners(self.value.index, groups, width)
