"""Which keys of a profile's grid go together that say how its step is made.

Everything that can be told from entries is told while planning. Standard library only.
"""

from rankwise.core import tasks
from rankwise.core.config import ConfigError
from rankwise.study.measurements import OF_EVALUATION, OWN_LENGTHS
from rankwise.study.memory_options import (
    ATTENTION,
    CAUSAL,
    Where,
    check_attention,
    check_packed_attention,
)


def check_step(grid: dict, entry: dict, dataset: dict, where: Where) -> None:
    """Check that the keys of a profile's grid which say how a step is made go together.

    Args:
        grid: Of a profile.
        entry: The resolved entry of a method.
        dataset: Its entry.
        where: File and key of the grid.

    Raises:
        ConfigError: flash-attn cannot run, a KV cache is asked for beside checkpointing, the
            modules have no such attention, there is no mask or no loss that reads logits of tokens
            as asked, nothing can generate, or no GPU is predicted.
    """
    file, key = where
    task, is_packed = dataset["task"], dataset.get("packing", False)
    _check_generation(grid, task, where)
    _check_loss_input(grid, task, (file, f"{key}.loss_input"))
    if grid["use_cache"] and grid["checkpointing"]:
        allowed = "false with checkpointing: transformers makes no cache for layers that run again"
        raise ConfigError(file, f"{key}.use_cache", True, allowed)
    _check_modules(grid, is_packed, where)
    _check_masks(grid, is_packed, where)
    if grid["adapted_on_gpu"] and grid["device"] == "cpu":
        allowed = "false with device: cpu, where no buffer is left behind"
        raise ConfigError(file, f"{key}.adapted_on_gpu", True, allowed)
    if grid["keeps_unit_inputs"] and not (grid["sharding"] == "fsdp1" and grid["checkpointing"]):
        allowed = "false without sharding: fsdp1 and checkpointing: true, whose hooks keep them"
        raise ConfigError(file, f"{key}.keeps_unit_inputs", True, allowed)
    runs = grid["measured"] or "throughput" in grid["measurements"]
    check_attention(grid, entry, where, runs=runs)
    check_packed_attention(grid, dataset, where)


def _check_modules(grid: dict, is_packed: bool, where: Where) -> None:
    """Check that nothing is asked of litgpt's attention that it does not have in training."""
    if grid["modules"] != "litgpt":
        return
    file, key = where
    if is_packed:
        allowed = "transformers with packing: litgpt's attention takes no mask"
        raise ConfigError(file, f"{key}.modules", "litgpt", allowed)
    if "generated_tokens" in grid:
        allowed = "nothing with modules: litgpt, whose attention here keeps no KV cache"
        raise ConfigError(file, f"{key}.generated_tokens", grid["generated_tokens"], allowed)
    plain = {"padded": False, "use_cache": False, "attention": ATTENTION}
    for name, value in plain.items():
        if grid[name] != value:
            shown = str(value).lower()
            allowed = f"{shown} with modules: litgpt, whose attention is torch's own, unmasked"
            raise ConfigError(file, f"{key}.{name}", grid[name], allowed)


def _check_masks(grid: dict, is_packed: bool, where: Where) -> None:
    """Check that there are masks of padding, where they are to be numbers."""
    if grid["masks"] != "numbers":
        return
    at = (where[0], f"{where[1]}.masks")
    if is_packed:
        raise ConfigError(*at, "numbers", "boolean with packing, whose mask is of numbers anyway")
    may_be_padded = grid["padded"] or grid.get("sequence_length_tokens") == OWN_LENGTHS
    if not (may_be_padded and grid["attention"] == ATTENTION):
        allowed = (
            f"boolean without padded: true (or sequence_length_tokens: {OWN_LENGTHS}) and "
            "attention: sdpa, which alone have such masks"
        )
        raise ConfigError(*at, "numbers", allowed)


def _check_generation(grid: dict, task: str, where: Where) -> None:
    """Check that an evaluation is predicted, that its model generates, and prompts have a use."""
    file, key = where
    for name in OF_EVALUATION:
        if name in grid and "ledger" not in grid["measurements"]:
            allowed = "nothing without the measurement ledger, which alone has an evaluation"
            raise ConfigError(file, f"{key}.{name}", grid[name], allowed)
    if "generated_tokens" in grid and tasks.facts(task).auto_class != CAUSAL:
        allowed = f"nothing with the task {task}, whose model is no causal language model"
        raise ConfigError(file, f"{key}.generated_tokens", grid["generated_tokens"], allowed)
    if "prompt_length_tokens" in grid and "generated_tokens" not in grid:
        allowed = "nothing without generated_tokens"
        raise ConfigError(
            file, f"{key}.prompt_length_tokens", grid["prompt_length_tokens"], allowed
        )


def _check_loss_input(grid: dict, task: str, where: Where) -> None:
    """Check that there is a full cross-entropy of tokens whose input can be another one."""
    if grid["loss_input"] == "fp32":
        return
    if grid["loss"] != "full":
        allowed = f"fp32 with loss {grid['loss']}, which never has all logits"
        raise ConfigError(*where, grid["loss_input"], allowed)
    if tasks.facts(task).auto_class != CAUSAL:
        allowed = f"fp32 with the task {task}, whose model is no causal language model"
        raise ConfigError(*where, grid["loss_input"], allowed)
