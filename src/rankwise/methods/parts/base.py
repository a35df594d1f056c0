"""The interface of a fine-tuning method, and how methods and optimizers are loaded and applied.

Methods and optimizers are loaded by the name of their module, so that no method imports another. A
module that the package does not have is loaded from the user's own folder (core/paths.py);
`package.module:Class` is a class of an installed package (core/plugins.py).
"""

import warnings
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rankwise.core.errors import Unsupported
from rankwise.methods.parts.adapter_dtypes import cast_added, keep_dtypes
from rankwise.methods.parts.classes import as_declared, class_in
from rankwise.methods.parts.optimizers import optimizer_over
from rankwise.methods.parts.option_checks import check_options
from rankwise.optim.parts.waiting import trains

DENSE = ("fp32", "bf16")

# peft reads transformers' older name of activation checkpointing at each model that it wraps.
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


class Start(NamedTuple):
    """The start that a method has computed before the first step: parameters by name.

    Attributes:
        base: of the base, before it is stored.
        adapted: of the adapted model.
    """

    base: dict[str, Tensor]
    adapted: dict[str, Tensor]


class Method:
    """A fine-tuning method: adapts a model, and may act after every optimizer step.

    One file in methods/ holds one frozen dataclass named like the file; its fields are the options.

    Attributes:
        TRAINABLE: how many numbers train, the head apart: an expression in r (rank), m and n (rows
            and columns of a matrix of `targets`; the expression is summed over them), d (hidden
            size), h (layers) and the options by name. Printed in docs/methods.md and counted in the
            tests.
        MODEL: the same for numbers that exist once a model.
        IDENTITY: before the first step, the adapted model answers as the model it was made of.
        PROMPT: `rank` virtual tokens stand before the text.
        QUANTIZED: works on a base in 4 or 8 bits, that is, neither trains nor reads its matrices.
        SHARDED: trains when each of several processes holds rows of every parameter (FSDP2), that
            is, neither changes nor reads parameters outside of their module's forward pass.
        KEEPS: what a run keeps if the study does not say: "adapter", what training changed; "model"
            for a method that trains the whole base, which has no adapter and keeps nothing unless
            it is asked to; "nothing" if nothing trains.
        MERGES: `merge` gives a model.
        CHANGES_BASE: values of the option `init` that take a part out of the base.
        ADDS_PARAMETERS: trains parameters that the base has not, whose dtype may be chosen.
    """

    TRAINABLE = "0"
    MODEL = "0"
    # IDENTITY may be a property where it depends on an option. The others are read from source
    # while planning (study/options.py, study/keep.py), so they must be constants.
    IDENTITY = True
    PROMPT = False
    QUANTIZED = False
    SHARDED = False
    ADDS_PARAMETERS = True
    KEEPS = "adapter"
    MERGES = True
    CHANGES_BASE = ()

    def __post_init__(self) -> None:
        """Check the options, as planning checks those of a study; 3.0 becomes 3.

        Raises:
            ValueError: names the class, the option, what was got and what is allowed.
        """
        check_options(self)

    def start(
        self, base: nn.Module, names: dict, batches: Iterable[dict[str, Tensor]], weights: str
    ) -> Start:
        """Measure where training starts, from data or from the dense base.

        A training run calls it once, before the base is stored and `prepare` adapts it. Profiles
        have no data and do not call it: they need shapes alone, so it may change none.

        Args:
            base: dense, in fp32; left as it is.
            names: from `models.build.names`.
            batches: training batches in random order, one epoch; each one that is drawn is counted
                as cost.
            weights: how the base will be stored, one of `models.storage.KINDS`.

        Returns:
            Values for parameters of the base and of the adapted model; none by default.

        Raises:
            Unsupported: the method cannot start so.
        """
        return Start({}, {})

    def factors(self, model: nn.Module) -> list[tuple[Tensor, Tensor, float]]:
        """LoRA's pairs, for optimizers that have an argument `pairs`.

        Args:
            model: the adapted model.

        Returns:
            (A, B, s) of every adapted matrix, W' = W + s B A; none by default.
        """
        return []

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Adapt `model` and set `requires_grad` of its parameters; change nothing else.

        Args:
            model: the base, as it is stored.
            names: from `models.build.names`: task, modules by role, head, new_head, hidden_size.

        Returns:
            The adapted model: `model` itself, or a model around it.

        Raises:
            NotImplementedError: a method must define it.
        """
        raise NotImplementedError

    def after_step(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Called after every step of the optimizer.

        Args:
            model: the adapted model, with the weights after the step.
            optimizer: it has taken the step; the method may change its state.
            step: number of the step, from 1.
        """

    def resume(self, model: nn.Module, step: int) -> None:
        """Called when a run continues after `step`, before the saved state is loaded.

        Brings back shapes and modes that the method has changed by then and no state dict holds.

        Args:
            model: the adapted model, as `prepare` returned it.
            step: number of the last step that the saved state has seen.
        """

    def observe(self, model: nn.Module) -> dict[str, float]:
        """Quantities for the history: `sparsity_fraction`, `product_effective_rank`.

        Args:
            model: the adapted model.

        Returns:
            Values by name; nothing by default.
        """
        return {}

    def settle(self, model: nn.Module) -> None:
        """Bring the model to the state in which it trains for most of the time.

        Called before FLOPs and latency are measured.

        Args:
            model: the adapted model, changed in place.
        """

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Why the method cannot adapt this model, or None if it can.

        Args:
            model: the base, as it is stored.
            names: from `models.build.names`.

        Returns:
            The reason, as a phrase for a message.
        """

    def rate(self, name: str) -> float:
        """The factor on the learning rate of the parameter called `name`."""
        return 1.0

    def held_by_peft(self, names: dict) -> bool:
        """Whether peft's own files hold all that trained, and `PeftModel.from_pretrained` opens it.

        Args:
            names: from `models.build.names`.
        """
        return False

    def opened(self, model: nn.Module, names: dict) -> None:
        """Called on a model that peft has opened from kept files: add what they do not hold.

        Args:
            model: the adapted model, changed in place.
            names: from `models.build.names`.
        """

    def merge(self, model: nn.Module) -> nn.Module | None:
        """A model of the base's own modules that answers as the adapted one; None if there is none.

        Uses the adapted model up.
        """
        return model


# Loading ------------------------------------------------------------------------------------------


def method_class(module: str) -> type[Method]:
    """The method of methods/<module>.py, or of a package.

    Args:
        module: as an entry has it.

    Raises:
        BrokenModule: the file cannot be imported, has no such class, or it is no `Method`.
    """
    return class_in("methods", module, Method)


def optimizer_class(module: str) -> type[torch.optim.Optimizer]:
    """The optimizer of optim/<module>.py, or of a package.

    Args:
        module: as an entry has it.

    Raises:
        BrokenModule: the file cannot be imported, has no such class, or it is no torch optimizer.
    """
    return class_in("optim", module, torch.optim.Optimizer)


def load_method(entry: dict) -> Method:
    """The method of a resolved entry (`study.plan.Plan.method`), with its options.

    Raises:
        BrokenModule: the file cannot be imported, or has no class named like it.
    """
    method = method_class(entry["module"])
    return method(**as_declared(entry["options"], method))


# Applying -----------------------------------------------------------------------------------------


def adapt(entry: dict, model: nn.Module, names: dict) -> tuple[Method, nn.Module]:
    """The method of a resolved entry, and the model that it has adapted.

    Args:
        entry: the resolved entry.
        model: the base, stored as the entry's `weights` say.
        names: from `models.build.names`.

    Raises:
        BrokenModule: the method's file cannot be imported, or has no class named like it.
        Unsupported: the method cannot adapt this model, or adds no parameters although the entry
            chooses their dtype; the message is the reason.
    """
    method = load_method(entry)
    stored = entry.get("weights", "fp32")
    if stored not in DENSE and not method.QUANTIZED:
        reason = f"trains or reads dense matrices, which weights {stored} are not"
        raise Unsupported(f"{entry['module']} {reason}")
    reason = method.unsupported(model, names)
    if reason:
        raise Unsupported(reason)
    of_base = {id(param) for param in model.parameters()}
    model = method.prepare(model, names)
    if "adapter_dtype" in entry:
        cast_added(model, of_base, names["new_head"], entry["adapter_dtype"])
    if entry.get("compute") == "bf16":
        keep_dtypes(model)
    return method, model


@torch.no_grad()
def set_parameters(model: nn.Module, values: dict[str, Tensor]) -> None:
    """Copy values into the parameters of a model that have these names, as those of a `Start`."""
    parameters = dict(model.named_parameters())
    for name, value in values.items():
        parameters[name].copy_(value)


def build_optimizer(
    entry: dict, method: Method, model: nn.Module, names: dict, seed: int
) -> torch.optim.Optimizer:
    """The optimizer of a resolved entry over the trainable parameters of an adapted model.

    Args:
        entry: the resolved entry; that of a profile has no learning rate.
        method: the entry's method.
        model: the adapted model.
        names: from `models.build.names`.
        seed: of the optimizer's sketches and random bases, where it takes one.

    Raises:
        BrokenModule: the optimizer's file cannot be imported, or has no class named like it.
        Unsupported: the optimizer cannot step these parameters in this training, or it steps
            LoRA's pairs, and the method has none.
        ValueError: nothing trains, or options that a parameter cannot have.
    """
    cls = optimizer_class(entry["optimizer"]["module"])
    groups = parameter_groups(entry, method, model, names)
    return optimizer_over(cls, entry, groups, seed, method.factors(model))


def unreleased(entry: dict) -> dict:
    """The entry with an optimizer that steps after backward.

    Profiles build optimizers without a backward of their own, so nothing can step inside it.
    """
    if "release" not in entry["optimizer"]:
        return entry
    return {**entry, "optimizer": {**entry["optimizer"], "release": False}}


def parameter_groups(entry: dict, method: Method, model: nn.Module, names: dict) -> list[dict]:
    """Parameter groups by learning rate, and by whether `dense` exempts them from projection.

    Where the optimizer trains blocks by turns (`BY_BLOCK`), a group also holds one block only.

    Args:
        entry: the resolved entry; that of a profile has no learning rate.
        method: the entry's method.
        model: the adapted model.
        names: from `models.build.names`.
    """
    learning_rate = entry.get("learning_rate", 0.0)
    by_block = getattr(optimizer_class(entry["optimizer"]["module"]), "BY_BLOCK", False)
    kinds = _kinds_by_parameter(model, names)
    exempt_kinds = entry.get("dense", ())
    layers = _layers_by_parameter(model) if by_block else {}
    params_by_group: dict[tuple[float, bool, int | str], list[nn.Parameter]] = {}
    for name, param in model.named_parameters():
        if trains(param):
            kind = kinds.get(id(param))
            outside = "embeddings" if kind == "embeddings" else "other"
            key = (method.rate(name), kind in exempt_kinds, layers.get(name, outside))
            params_by_group.setdefault(key if by_block else (*key[:2], ""), []).append(param)
    groups = []
    for (rate, is_dense, block), params in params_by_group.items():
        group = {"params": params, "lr": rate * learning_rate}
        if is_dense:
            group["dense"] = True
        if by_block:
            group["block"] = block
        groups.append(group)
    return groups


def _layers_by_parameter(model: nn.Module) -> dict[str, int]:
    """The number of the layer of every parameter in one, by name; layers are counted from 0.

    A layer is an element of an outermost nn.ModuleList.
    """
    lists = {name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    numbers: dict[str, int] = {}  # by the layer's own name
    layer_by_name = {}
    for name, _ in model.named_parameters():
        parts = name.split(".")
        for depth in range(1, len(parts) - 1):
            if ".".join(parts[:depth]) in lists:
                layer = ".".join(parts[: depth + 1])
                layer_by_name[name] = numbers.setdefault(layer, len(numbers))
                break
    return layer_by_name


def _kinds_by_parameter(model: nn.Module, names: dict) -> dict[int, str]:
    """By id, the parameters that an entry may exempt from projection: "embeddings" or "head".

    The output embedding that is tied to the input embedding counts as the head, which comes later.
    """
    kinds = {}
    for name, module in model.named_modules():
        for param in module.parameters(recurse=False):
            if isinstance(module, nn.Embedding):
                kinds[id(param)] = "embeddings"
            elif set(name.split(".")) & set(names["head"]):
                kinds[id(param)] = "head"
    return kinds


def train_only(model: nn.Module, suffixes: tuple[str, ...]) -> None:
    """Make trainable exactly the parameters of modules whose last name is in `suffixes`.

    Args:
        model: changed in place.
        suffixes: last components of module names, such as "classifier"; with none, nothing trains.
    """
    model.requires_grad_(False)
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in suffixes:
            module.requires_grad_(True)
