"""Whether a cell can train on packs: several examples in one row, without attention across them.

The mask of such a batch is (batch, 1, tokens, tokens), and its positions begin anew with each
example. Standard library only.
"""

from rankwise.core import plugins
from rankwise.core.config import ConfigError
from rankwise.study.dataset_entries import FILE
from rankwise.study.options import constant, defines

# Families whose packed logits are compared with those of single examples by a test.
FAMILIES = ("gpt2", "gpt_neox", "llama", "mistral", "qwen2")


def check_packing(dataset: dict, model: dict, method: dict, names: tuple[str, str, str]) -> None:
    """Check that the examples of a pack stay apart in a model under a method.

    Args:
        dataset: Its entry.
        model: Its entry.
        method: Its resolved entry.
        names: Of the dataset, the model and the method.

    Raises:
        ConfigError: The family is not known to keep them apart, or the method joins them.
    """
    if not dataset.get("packing"):
        return
    key = f"{names[0]}.packing"
    if model["family"] not in FAMILIES:
        allowed = (
            f"false for {names[1]} ({model['family']}): examples of a pack are known to stay apart "
            f"in {', '.join(FAMILIES)}"
        )
        raise ConfigError(FILE, key, True, allowed)
    if model["architecture"].get("sliding_window"):
        allowed = f"false for {names[1]}: its sliding window does not reach the mask of a pack"
        raise ConfigError(FILE, key, True, allowed)
    source = plugins.source_name("methods", method["module"])
    why = None
    if constant(source, "PROMPT", False):
        why = "its virtual tokens stand before a row, and not before each example"
    elif defines(source, "start"):
        why = "its start reads which tokens are padding from a mask of a token each"
    if why:
        raise ConfigError(FILE, key, True, f"false with {names[2]}: {why}")
