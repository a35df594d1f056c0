"""LoRA and its variants by option: W' x = W x + gamma B A x; by peft.

A (r, n) and B (m, r) train, W (m, n) is frozen.

LoRA (Hu et al. 2021, arXiv 2106.09685, eq. 3): gamma = alpha / r; A Kaiming-uniform, B = 0, so
nothing changes at the start. With G the gradient of the loss with respect to W': gA = gamma B'G, gB
= gamma G A'.

rslora (Kalajdzievski 2023, arXiv 2312.03732, theorem 3.2): gamma = alpha / sqrt(r).

dora (Liu et al. 2024, arXiv 2402.09353, eq. 5): the rows of W + gamma B A get trainable lengths mu
(m), which start as those of W; the norm is a constant in backward (section 4.3). The paper's
columns are our rows, because torch keeps W as (out, in).

init pissa (Meng et al. 2024, arXiv 2404.02948, eq. 2-4): gamma B A is the best rank-r part of W,
and the frozen matrix becomes the residual, whose largest singular value is the (r + 1)-th of W.
pissa_niter_4 uses a randomized SVD with 4 power iterations. init olora (Büyükakyüz 2024, arXiv
2406.01775): B and A are the first r columns of Q and rows of R in W = Q R; the rest is frozen. Both
start at the base's answers up to rounding (1e-5), not exactly. Starts that need data, or the error
of quantization, are in started_lora.py.

plus_ratio, LoRA+ (Hayou et al. 2024, arXiv 2402.12354): B learns `plus_ratio` times as fast as A.
As in the authors' code, so do all vectors (mu, the biases of a new head). There, vectors have no
weight decay; here the optimizer decides.

freeze_a, LoRA-FA (Zhang et al. 2023, arXiv 2308.03303): A keeps its random start, so a layer keeps
A x for backward, and not x. The optimizer lora_fa has the paper's gradient of B.
"""

from dataclasses import dataclass
from typing import Literal

from peft import LoraConfig
from torch import Tensor, nn

from rankwise.methods.parts.lora_base import LoraBase, factor_pairs, scaled_pairs
from rankwise.methods.parts.peft_base import modules_of

VECTORS = (".bias", ".lora_magnitude_vector.default.weight")


@dataclass(frozen=True)
class Lora(LoraBase):
    """Trains A and B; the options after LoRA's own switch variants on."""

    TRAINABLE = "r * (m + (1 - freeze_a) * n) + dora * m"
    QUANTIZED = True
    SHARDED = True
    CHANGES_BASE = ("pissa", "pissa_niter_4", "olora")

    rslora: bool = False
    dora: bool = False
    init: Literal["default", "gaussian", "pissa", "pissa_niter_4", "olora"] = "default"
    plus_ratio: float = 1.0
    freeze_a: bool = False

    @property
    def IDENTITY(self) -> bool:
        """Whether B starts at zero. The other starts move a part of W into B A, up to rounding."""
        return self.init in ("default", "gaussian")

    def config(self, names: dict) -> LoraConfig:
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            use_rslora=self.rslora,
            use_dora=self.dora,
            init_lora_weights=True if self.init == "default" else self.init,
        )

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Refuse starts that take a part out of a quantized W, and olora for Conv1D."""
        targets = modules_of(model, self.targets, names).values()
        is_dense = all(module.weight.is_floating_point() for module in targets)
        if not self.IDENTITY and not is_dense:
            return f"init {self.init} takes a part out of W, which must not be quantized"
        if self.init == "olora" and self.has_conv1d(model, names):
            return "peft starts olora for nn.Linear; the targets of this model are Conv1D"
        return None

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Adapt the model by peft, and freeze A if the option says so."""
        adapted = super().prepare(model, names)
        if self.freeze_a:
            for a, _ in factor_pairs(adapted):
                a.requires_grad_(False)
        return adapted

    def factors(self, model: nn.Module) -> list[tuple[Tensor, Tensor, float]]:
        """The pairs of all adapted matrices."""
        return scaled_pairs(model)

    def rate(self, name: str) -> float:
        """LoRA+: B and all vectors learn faster than A."""
        return self.plus_ratio if ".lora_B." in name or name.endswith(VECTORS) else 1.0
