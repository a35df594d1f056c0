"""Which options that save memory go together: the loss, and the dtypes of base and adapters.

Everything that can be told from entries is told while planning. Standard library only.
"""

import importlib.util

from rankwise.core import plugins, tasks
from rankwise.core.config import ConfigError
from rankwise.study.options import constant
from rankwise.study.origin import Origin

CAUSAL = "AutoModelForCausalLM"
# Families of transformers that change their logits behind the head -> the key that says how. With
# null the logits are as the head makes them.
CHANGED_LOGITS = {
    "cohere": "logit_scale",
    "cohere2": "logit_scale",
    "gemma2": "final_logit_softcapping",
    "gemma3": "final_logit_softcapping",
    "gemma3_text": "final_logit_softcapping",
    "granite": "logits_scaling",
}
# Those that have it by default.
ALWAYS_CHANGED = ("cohere", "cohere2", "gemma2", "granite")
ATTENTION = "sdpa"  # what a schedule or a grid that names no attention has
Where = tuple[str, str]  # file, key


def check_loss(kind: str, task: str, model: str, entry: dict, device: str, where: Where) -> None:
    """Check that a model and a task have a cross-entropy that can be computed in chunks.

    Args:
        kind: `full`, `chunked` or `liger`.
        task: The task's name.
        model: The model's name.
        entry: Of the model.
        device: That training runs on.
        where: File and key of the loss.

    Raises:
        ConfigError: The task's model is no causal language model, the model changes its logits, or
            liger's kernels cannot run.
    """
    if kind == "full":
        return
    if tasks.facts(task).auto_class != CAUSAL:
        allowed = f"full with the task {task}, whose model is no causal language model"
        raise ConfigError(*where, kind, allowed)
    family, architecture = entry["family"], entry["architecture"]
    key = CHANGED_LOGITS.get(family)
    if key is not None and architecture.get(key, family in ALWAYS_CHANGED):
        allowed = f"full with {model}: {family} changes its logits behind the head ({key})"
        raise ConfigError(*where, kind, allowed)
    if kind == "liger":
        if device != "cuda":
            allowed = f"full or chunked with device {device}: liger's kernels run on a GPU"
            raise ConfigError(*where, kind, allowed)
        if importlib.util.find_spec("liger_kernel") is None:
            allowed = "full or chunked, or liger after `pip install liger-kernel`"
            raise ConfigError(*where, kind, allowed)


def check_packed_attention(step: dict, dataset: dict, where: Where) -> None:
    """Check that attention takes the mask that keeps the examples of a pack apart.

    Args:
        step: With `attention`, if it has one: a grid of profiles or a schedule.
        dataset: Its entry.
        where: File and key of the grid or the schedule.

    Raises:
        ConfigError: It is flash-attn's.
    """
    if step.get("attention") == "flash" and dataset.get("packing"):
        allowed = "sdpa or eager with packing: flash-attn takes no mask that keeps texts apart"
        raise ConfigError(where[0], f"{where[1]}.attention", "flash", allowed)


def check_attention(step: dict, entry: dict, where: Where, *, runs: bool) -> None:
    """Check that a step can have its attention.

    Args:
        step: Its `device`, `precision` and `attention`: a profile's grid, or a schedule.
        entry: The resolved entry of a method.
        where: File and key of the grid or the schedule.
        runs: Whether the step is run, not only predicted.

    Raises:
        ConfigError: flash-attn cannot run.
    """
    file, key = where
    if step.get("attention", ATTENTION) != "flash":
        return
    at = (file, f"{key}.attention")
    if step["device"] != "cuda":
        allowed = f"sdpa or eager with device {step['device']}: flash-attn runs on a GPU"
        raise ConfigError(*at, "flash", allowed)
    widths = {step["precision"], entry["weights"], entry.get("compute")}
    if widths.isdisjoint(("bf16", "fp16")):
        allowed = (
            "sdpa or eager in fp32; flash-attn takes bf16 and fp16: precision bf16 or fp16, "
            "weights bf16, or a quantized base and compute bf16"
        )
        raise ConfigError(*at, "flash", allowed)
    if runs and importlib.util.find_spec("flash_attn") is None:
        unmeasured = " or with measured: false" if "measured" in step else ""
        allowed = f"sdpa, eager, or flash after `pip install flash-attn`{unmeasured}"
        raise ConfigError(*at, "flash", allowed)


def check_precision(name: str, step: dict, entry: dict, where: Where) -> None:
    """Check that fp16 can be computed in, where it is asked for: its loss is scaled.

    Args:
        name: The method's name.
        step: Its `precision`: a profile's grid, or a schedule.
        entry: The resolved entry of the method.
        where: File and key of the grid or the schedule.

    Raises:
        ConfigError: The optimizer uses gradients before they are divided by the scale, or something
            is stored or computed in bf16.
    """
    if step["precision"] != "fp16":
        return
    at = (where[0], f"{where[1]}.precision")
    if entry["optimizer"].get("release"):
        allowed = (
            f"fp32 or bf16 with {name}, whose optimizer uses gradients inside backward, before "
            "they are divided by the scale of fp16's loss; or optimizer.release: false"
        )
        raise ConfigError(*at, "fp16", allowed)
    for key in ("weights", "compute", "adapter_dtype"):
        if entry.get(key) == "bf16":
            allowed = f"fp32 or bf16 with {name}, which has {key}: bf16"
            if key == "compute":
                allowed += "; or compute: autocast, which multiplies in fp16"
            raise ConfigError(*at, "fp16", allowed)


def check_scaled_sharding(schedule: dict, where: Where) -> None:
    """Check that each process of a training in fp16 has all gradients.

    Args:
        schedule: With `precision` and `sharding`.
        where: File and key of the schedule.

    Raises:
        ConfigError: It has a part of them, and another part may be infinite.
    """
    if schedule["precision"] == "fp16" and schedule["sharding"] != "ddp":
        allowed = (
            f"fp32 or bf16 with sharding {schedule['sharding']}; in fp16 each process looks for "
            "infinite gradients, and must have all of them"
        )
        raise ConfigError(where[0], f"{where[1]}.precision", "fp16", allowed)


def check_kernel(optimizer: dict, origin: Origin) -> None:
    """Check that an optimizer of torch's kind has one way to step.

    Args:
        optimizer: Its options, filled.
        origin: Where the values of the entry come from.

    Raises:
        ConfigError: All tensors at once, and by one kernel, are both asked for.
    """
    if optimizer.get("foreach") and optimizer.get("fused"):
        allowed = "one of foreach and fused; leave the other out"
        raise ConfigError(*origin.place("optimizer", "fused"), True, allowed)


def check_dtypes(entry: dict, dense: tuple[str, ...], origin: Origin) -> None:
    """Check that `compute` and `adapter_dtype` of a method's entry have something to act on.

    Args:
        entry: The entry, with defaults of the schema.
        dense: The storages that are not quantized.
        origin: Where the values of the entry come from.

    Raises:
        ConfigError: The base is not quantized; the method adds no parameters, or they would be
            narrower than the base.
    """
    module, weights = entry["module"], entry["weights"]
    if "compute" in entry and weights in dense:
        allowed = (
            f"nothing with weights {weights}, which compute in their own dtype or in the "
            "schedule's precision; or weights nf4, nf4_double or int8"
        )
        raise ConfigError(*origin.place("compute"), entry["compute"], allowed)
    source = plugins.source_name("methods", module)
    if "adapter_dtype" in entry and not constant(source, "ADDS_PARAMETERS", True):
        allowed = (
            f"nothing under {module}, which adds no parameters: theirs is the dtype of weights"
        )
        raise ConfigError(*origin.place("adapter_dtype"), entry["adapter_dtype"], allowed)
    if entry.get("adapter_dtype") == "bf16" and "bf16" not in (weights, entry.get("compute")):
        allowed = (
            "fp32 with a base that computes in fp32; or bf16 with weights bf16, or with a "
            "quantized base and compute bf16"
        )
        raise ConfigError(*origin.place("adapter_dtype"), "bf16", allowed)
