"""Any type of peft that has no file of its own here: the option `type` names it; by peft.

`rank` is the number that sets a type's capacity (`CAPACITY`); a type without one has rank null.
`settings` are further fields of the type's own configuration class, checked against peft's source
while a study is planned; the value `rank` stands for the rank. peft's defaults hold for all other
fields.

Where this differs from peft: the seed of a random basis comes from torch's global generator,
because peft's own is the same in every run. A new head trains beside every type. TRAINABLE_TOKENS
trains the first `rank` rows of the embedding unless `token_indices` names others. ADAPTION_PROMPT
has prompts in all layers unless `adapter_layers` says otherwise. BOFT has one butterfly factor,
because peft computes more by a CUDA extension only, and takes one without a word where it has none.

Types that need more than a step of an optimizer are unsupported (`NEEDS`): task ids, other
adapters, a loss or a package of their own. LoRA, AdaLoRA, IA3, OFT, VeRA, MiSS, HiRA, SHiRA and the
prompts have files of their own.
"""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal
from unittest import mock

import peft
import torch
from peft import PeftConfig, PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.beft.layer import BeftLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from rankwise.core.errors import Unsupported
from rankwise.methods.parts.llama_adapter import compute_queries_only
from rankwise.methods.parts.peft_base import PeftMethod, modules_of
from rankwise.methods.parts.peft_shapes import get_peft_model_from_shapes

RANK = "rank"  # as a setting's value: the rank of the cell
IN_EVERY_LAYER = ("ADAPTION_PROMPT",)  # these find their own places in the model
NORMS = ("LN_TUNING",)
EMBEDDING = ("TRAINABLE_TOKENS",)
OWN_HEAD = (*IN_EVERY_LAYER, *NORMS, *EMBEDDING)  # peft would not train a head beside these
STARTS_ELSEWHERE = ("C3A", "FOURIERFT", "UNILORA", "VBLORA")  # a random update from the start
# Fields that hold the seed of a random basis.
SEEDS = {
    "FOURIERFT": "random_loc_seed",
    "PVERA": "projection_prng_key",
    "RANDLORA": "projection_prng_key",
    "TINYLORA": "projection_seed",
    "UNILORA": "proj_seed",
    "WAVEFT": "random_loc_seed",
}
# What peft raises where it cannot adapt a model.
REFUSALS = (ValueError, TypeError, LookupError, NotImplementedError, AttributeError, ImportError)


@dataclass(frozen=True)
class Peft(PeftMethod):
    """Trains what the type of peft trains.

    Attributes:
        ON_CODES: types that work on a base in 4 or 8 bits.
        NEEDS: by type that cannot be trained here, the reason.
        OWN_PLACES: types that find their places in the model themselves.
        CAPACITY: by type, the field of peft's configuration that the rank fills.
        FORMULAS: by type, TRAINABLE; settings are named as in peft. A type without one shares
            numbers between matrices, or trains others where a matrix has a bias.
        MODEL_FORMULAS: by type, MODEL.
    """

    # Read from source while planning (study/peft_settings.py), so these are literals.
    CAPACITY: ClassVar = {
        "ADAPTION_PROMPT": "adapter_len",
        "BOFT": "boft_block_size",
        "C3A": "block_size",
        "DEFT": "r",
        "DELORA": "r",
        "FOURIERFT": "n_frequency",
        "GLORA": "r",
        "GRALORA": "r",
        "HRA": "r",
        "LILY": "r",
        "LOHA": "r",
        "LOKR": "r",
        "OSF": "effective_rank",
        "PEANUT": "r",
        "PSOFT": "r",
        "PVERA": "r",
        "RANDLORA": "r",
        "TINYLORA": "u",
        "TRAINABLE_TOKENS": "token_indices",
        "UNILORA": "r",
        "VBLORA": "r",
        "WAVEFT": "n_frequency",
    }
    # Why a type cannot be trained here.
    NEEDS: ClassVar = {
        "ADAMSS": "clusters subspaces by scikit-learn, which Rankwise does not install",
        "CARTRIDGE": "starts from a document's keys and values, and learns from answers about it",
        "CPT": "needs the tokens of labelled examples as its prompt, and a loss of its own",
        "FROD": "multiplies sparse matrices, whose memory and FLOPs do not follow from shapes",
        "MULTITASK_PROMPT_TUNING": "needs the id of a task with every example",
        "POLY": "needs the id of a task with every example",
        "SHADOW": "needs the loss of its second model in every step",
        "XLORA": "mixes LoRA adapters that were trained before",
    }
    # These types adapt no matrix of `targets`, and peft would not train a head beside them.
    OWN_PLACES: ClassVar = ("ADAPTION_PROMPT", "LN_TUNING", "TRAINABLE_TOKENS")
    # These types read no frozen matrix, or dequantize it first. The others read W, or the shape of
    # its codes.
    ON_CODES: ClassVar = (
        "ADAPTION_PROMPT", "BEFT", "BOFT", "C3A", "FOURIERFT", "GRALORA", "LILY", "LN_TUNING",
        "PVERA", "RANDLORA", "ROAD", "TRAINABLE_TOKENS", "UNILORA", "VBLORA", "WAVEFT",
    )  # fmt: skip
    # Read while planning, too (study/keep.py). The answer is no product with a fixed matrix; or the
    # merged model has a bias wherever the type adapts.
    NEVER_MERGED: ClassVar = ("ADAPTION_PROMPT", "LILY")
    TRAINS_BIASES: ClassVar = ("BEFT",)
    QUANTIZED = True  # planning and `unsupported` refuse the types that are not in ON_CODES

    FORMULAS: ClassVar = {
        "BEFT": "m",
        "BOFT": "r * n + m",
        "C3A": "m * n // r",
        "DEFT": "r * (m + n)",
        "DELORA": "r * (m + n) + 1",
        "FOURIERFT": "r",
        "GRALORA": "r * (m + n)",
        "HRA": "r * n",
        "LOHA": "2 * r * (m + n)",
        "OSF": "(min(m, n) - r) * (m + n + 1)",
        "PEANUT": "2 * r * m",
        "PSOFT": "r * (r - 1) // 2 + 2 * r",
        "PVERA": "2 * r + m",
        "RANDLORA": "-(-min(m, n) // r) * (r + min(m, n))",
        "ROAD": "m",
        "SUPERTUNING": "int(m * n * (1 - sparsity))",
        "TINYLORA": "r",
        "VBLORA": "r * (m + n) * num_vectors // vector_length",
        "WAVEFT": "r",
    }
    MODEL_FORMULAS: ClassVar = {
        "ADAPTION_PROMPT": "h * (r * d + 1)",
        "TRAINABLE_TOKENS": "r * d",
        "UNILORA": "theta_d_length",
        "VBLORA": "num_vectors * vector_length",
    }

    type: Literal[
        "ADAMSS", "ADAPTION_PROMPT", "BEFT", "BOFT", "C3A", "CARTRIDGE", "CPT", "DEFT", "DELORA",
        "FOURIERFT", "FROD", "GLORA", "GRALORA", "HRA", "LILY", "LN_TUNING", "LOHA", "LOKR",
        "MULTITASK_PROMPT_TUNING", "OSF", "PEANUT", "POLY", "PSOFT", "PVERA", "RANDLORA", "ROAD",
        "SHADOW", "SUPERTUNING", "TINYLORA", "TRAINABLE_TOKENS", "UNILORA", "VBLORA", "WAVEFT",
        "XLORA",
    ]  # fmt: skip
    rank: int | None
    targets: tuple[str, ...] = ()
    settings: dict | None = None

    @property
    def TRAINABLE(self) -> str:
        """Numbers a target matrix, by type."""
        return self.FORMULAS.get(self.type, "0")

    @property
    def MODEL(self) -> str:
        """Numbers a model, by type."""
        return self.MODEL_FORMULAS.get(self.type, "0")

    @property
    def IDENTITY(self) -> bool:
        """Whether the update is zero at the start; a setting of the start may change it."""
        if self.type == "HRA" and self.rank % 2:
            return False  # a reflection without its twin
        moved = {"init_weights", "para"} & set(self.settings or {})
        return self.type not in STARTS_ELSEWHERE and not moved

    def config(self, names: dict) -> PeftConfig:
        """The configuration, with the rank in its field and a seed from torch's generator.

        Raises:
            Unsupported: peft refuses a value.
        """
        values = dict(self.settings or {})
        for name, value in values.items():
            if value == RANK:
                values[name] = self.rank
        if self.type in EMBEDDING:
            values.setdefault("token_indices", list(range(self.rank)))
        elif self.type in self.CAPACITY:
            values[self.CAPACITY[self.type]] = self.rank
        if self.type in SEEDS:
            values.setdefault(SEEDS[self.type], int(torch.randint(2**31, (), device="cpu")))
        with self._refusals():
            return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType[self.type]](**values)

    def resolved(self, model: nn.Module, names: dict) -> PeftConfig:
        """Also finds the places of types that adapt no matrix of `targets`."""
        config = super().resolved(model, names)
        if self.type in self.OWN_PLACES:
            config.target_modules, config.modules_to_save = None, None
        if self.type in NORMS:
            # LayerNorm in BERT, LlamaRMSNorm in Llama
            norms = [
                name for name, module in model.named_modules() if "Norm" in type(module).__name__
            ]
            config.target_modules = set(norms)
        if self.type in IN_EVERY_LAYER and config.adapter_layers is None:
            config.adapter_layers = model.config.num_hidden_layers
        return config

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Adapt the model by peft.

        Raises:
            Unsupported: peft refuses the model or a setting; the message is peft's.
        """
        config = self.resolved(model, names)
        targets = list(modules_of(model, self.targets, names))
        is_meta = next(model.parameters()).is_meta
        build = get_peft_model_from_shapes if is_meta else get_peft_model
        # Without its CUDA extension, which peft would compile here, BOFT computes the same.
        no_extension = mock.patch("peft.tuners.boft.layer.get_fbd_cuda", lambda: None)
        with self._refusals(), no_extension, warnings.catch_warnings():
            # LN tuning of a norm is peft's own, but peft warns of its type.
            warnings.filterwarnings("ignore", "Unsupported layer type")
            adapted = build(model, config)
        self._check_adapted(adapted, targets)
        compute_queries_only(adapted)
        if self.type in self.OWN_PLACES:
            for name, module in adapted.named_modules():
                if name.rpartition(".")[2] in names["new_head"]:
                    module.requires_grad_(True)
        return adapted

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Refuse types that need what is not here, and bases that a type cannot read."""
        if self.type not in PeftType.__members__:
            return f"the installed peft {peft.__version__} is too old for {self.type}"
        if self.type in self.NEEDS:
            return f"{self.type} {self.NEEDS[self.type]}"
        return self._cannot_read(model, names)

    def _cannot_read(self, model: nn.Module, names: dict) -> str | None:
        """Why the type cannot adapt this base, or None."""
        targets = modules_of(model, self.targets, names)
        if self.type not in self.OWN_PLACES and not targets:
            return f"{self.type} has no targets in this model"
        shorter = min((min(module.weight.shape) for module in targets.values()), default=0)
        if self.type == "OSF" and self.rank >= shorter:
            return f"OSF freezes {self.rank} directions of a matrix that has {shorter}"
        if self.type == "BOFT" and (self.settings or {}).get("boft_n_butterfly_factor", 1) != 1:
            return "peft computes more than one butterfly factor of BOFT by a CUDA extension only"
        is_dense = all(module.weight.is_floating_point() for module in targets.values())
        if not is_dense and self.type not in self.ON_CODES:
            return f"{self.type} reads the dense matrix, which a quantized base has not"
        return None

    def held_by_peft(self, names: dict) -> bool:
        """Whether peft saves all that trains: not a new head beside the types of OWN_HEAD."""
        return not (self.type in OWN_HEAD and names["new_head"])

    def merge(self, model: nn.Module) -> nn.Module | None:
        """Merge by peft; None for types whose answer is no product with a fixed matrix."""
        if self.type in self.NEVER_MERGED:
            return None
        for layer in model.modules():
            if isinstance(layer, BeftLayer) and layer.get_base_layer().bias is None:
                base = layer.get_base_layer()
                base.bias = nn.Parameter(base.weight.new_zeros(len(base.weight)))
        return super().merge(model)

    def _check_adapted(self, adapted: nn.Module, targets: Iterable[str]) -> None:
        """Refuse a model in which peft has silently left a target as it was.

        Raises:
            Unsupported: names the first such target.
        """
        for name in targets:
            layer = adapted.base_model.model.get_submodule(name)
            if not isinstance(layer, BaseTunerLayer):
                raise Unsupported(f"peft has no {self.type} for {name}, a {type(layer).__name__}")

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Turn what peft refuses into one sentence.

        Raises:
            Unsupported: peft refuses a value, a model or a layer.
        """
        try:
            yield
        except REFUSALS as error:
            reason = " ".join(str(error).split())
            raise Unsupported(f"peft refuses {self.type}: {reason}") from error
