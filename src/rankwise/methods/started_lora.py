"""LoRA whose factors start from data, or from the error of quantization.

It trains as LoRA does (Hu et al. 2021, arXiv 2106.09685): W' = W + s B A, s = alpha / r. `init`
says where A and B start. What s B A then adds is taken off W before W is stored, so that the first
answers are the base's up to rounding.

eva (Paischer et al. 2024, arXiv 2410.07170): A is the first r principal components of the layer's
inputs, by peft's incremental PCA; B = 0. Every layer has rank r, which is the paper's rho = 1: with
rho > 1 shapes would depend on data. Where we differ: we read `start_batches` batches, while the
paper stops when the components no longer turn. All tokens count except padding, while peft leaves
out tokens without a label.

corda_ipm, corda_kpm (Yang et al. 2024, arXiv 2406.05223): B A is the part of W with the largest
(ipm: learn the task) or smallest (kpm: keep what is known) singular values of W C, where C is the
covariance of the layer's inputs; by peft's `preprocess_corda`. Where we differ: the paper's kpm
takes C from texts with the knowledge to keep; here it comes from the training texts.

lora_ga (Wang et al. 2024, arXiv 2407.05000): A and B are singular vectors of W's gradient, so that
the first step goes where that of full fine-tuning would. As in the authors' code both factors are
scaled by m^(1/4) / sqrt(gamma), gamma = 16. peft 0.21.2 scales B alone, and by the gradient's
singular values as well, so its start depends on the size of the gradient. The start needs the full
gradients of the adapted matrices: one at a time on the device, their sums on the host. Where a
gradient has a rank below 2 r, as in a last layer whose output is read at few tokens, the remaining
directions are arbitrary.

loftq (Li et al. 2023, arXiv 2310.08659, algorithm 1): the base is quantized, and B A is the best
rank-r fit of what quantization loses, in `loftq_iterations` alternations; five as in the authors'
script, while peft makes one. It reads no data, but the dense base. The fit is s B A; peft, which
leaves s out, fits only where s is 1.

The batches come from the train split, in an order of their own that depends on the seed alone. The
cost of the start is in the result: `start_time_s`, `start_samples`, `start_tokens`, `start_flops`
(the matrix products that torch counts, without SVDs), and on a GPU `start_peak_bytes`. A profile
has no data: it measures LoRA's steps from LoRA's own start, whose shapes are the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from rankwise.core.errors import Unsupported
from rankwise.methods.parts import lora_starts
from rankwise.methods.parts.base import DENSE, Start
from rankwise.methods.parts.lora_base import LoraBase, scaled_pairs
from rankwise.methods.parts.peft_base import modules_of
from rankwise.models import storage


@dataclass(frozen=True)
class StartedLora(LoraBase):
    """Trains A and B from a start of their own.

    Attributes:
        init: the start; each has an entry.
        start_batches: how many training batches it reads; loftq reads none.
        loftq_iterations: of quantization and SVD.
        gamma: lora_ga's.
    """

    TRAINABLE = "r * (m + n)"
    QUANTIZED = True
    QUANTIZED_ONLY = ("loftq",)  # starts that need a base in 4 or 8 bits; read while planning
    CHANGES_BASE = ("corda_ipm", "corda_kpm", "lora_ga", "loftq")

    init: Literal["eva", "corda_ipm", "corda_kpm", "lora_ga", "loftq"] = "eva"
    start_batches: int = 16
    loftq_iterations: int = 5
    gamma: float = 16.0

    @property
    def IDENTITY(self) -> bool:
        """Whether B starts at zero. The other starts move a part of W into B A, up to rounding."""
        return self.init == "eva"

    def factors(self, model: nn.Module) -> list[tuple[Tensor, Tensor, float]]:
        """The pairs of all adapted matrices."""
        return scaled_pairs(model)

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Refuse ranks that a start cannot have, and encoder-decoders for starts from inputs.

        These read an example by one mask, and the two stacks have texts of other lengths.
        """
        if self.init in ("eva", "corda_ipm", "corda_kpm") and model.config.is_encoder_decoder:
            return f"init {self.init} reads the inputs of one stack of layers; the model has two"
        for name, module in modules_of(model, self.targets, names).items():
            m, n = _rows_and_columns(module)
            largest = {"eva": n, "lora_ga": min(m, n) // 2}.get(self.init, min(m, n))
            if self.rank > largest:
                return f"init {self.init}: got rank {self.rank}, {name} allows at most {largest}"
        return None

    def start(
        self, base: nn.Module, names: dict, batches: Iterable[dict[str, Tensor]], weights: str
    ) -> Start:
        """Compute A, B and what is left of W."""
        reason = self.unsupported(base, names)
        if self.init in self.QUANTIZED_ONLY and weights in DENSE:
            reason = (
                f"init loftq fits the error of quantization, which weights {weights} do not have"
            )
        if reason:
            raise Unsupported(reason)
        targets = modules_of(base, self.targets, names)
        if self.init == "loftq":
            return self._loftq(targets, weights)
        read = islice(batches, self.start_batches)
        factors = self._factors(base, targets, read)
        residuals = {}
        if self.init != "eva":
            for name, (a, b) in factors.items():
                residual = lora_starts.dense_weight(targets[name]) - self._scale * (b @ a).to(
                    targets[name].weight.device
                )
                residuals[f"{name}.weight"] = _as_kept(targets[name], residual)
        return Start(residuals, _by_parameter(factors))

    @property
    def _scale(self) -> float:
        return self.alpha / self.rank

    def _factors(
        self,
        base: nn.Module,
        targets: dict[str, nn.Module],
        batches: Iterable[dict[str, Tensor]],
    ) -> lora_starts.Factors:
        if self.init == "eva":
            return lora_starts.eva(base, targets, batches, self.rank)
        if self.init == "lora_ga":
            return lora_starts.lora_ga(base, targets, batches, self.rank, self.gamma)
        mode = self.init.removeprefix("corda_")
        return lora_starts.corda(base, targets, batches, self.rank, self._scale, mode)

    def _loftq(self, targets: dict[str, nn.Module], weights: str) -> Start:
        to_quantize, factors = {}, {}
        for name, module in targets.items():
            to_quantize[f"{name}.weight"], *factors[name] = lora_starts.loftq(
                module.weight.detach(),
                self.rank,
                self._scale,
                self.loftq_iterations,
                lambda matrix: _quantized(matrix, weights),
            )
        return Start(to_quantize, _by_parameter(factors))


def _rows_and_columns(module: nn.Module) -> tuple[int, int]:
    if isinstance(module, Conv1D):
        return module.nf, module.nx
    return module.out_features, module.in_features


def _as_kept(
    module: nn.Module,
    weight: Tensor,  # (m, n)
) -> Tensor:
    """A matrix as the module keeps it."""
    return weight.mT if isinstance(module, Conv1D) else weight


def _by_parameter(factors: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Factors by the names of peft's parameters."""
    values = {}
    for name, (a, b) in factors.items():
        values[f"base_model.model.{name}.lora_A.default.weight"] = a
        values[f"base_model.model.{name}.lora_B.default.weight"] = b
    return values


@torch.no_grad()
def _quantized(
    weight: Tensor,  # (m, n)
    kind: str,
) -> Tensor:  # (m, n)
    """A matrix after it was stored in 4 or 8 bits."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    holder = nn.ModuleDict({"layer": layer})
    return storage.store(holder, kind, {"head": [], "new_head": []})["layer"].dense_weight()
