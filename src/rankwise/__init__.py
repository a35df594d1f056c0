"""Rankwise: rebuild a paper's whole result set on efficient fine-tuning.

    import rankwise
    print(rankwise.predict("distilbert", "lora", rank=8))     # a memory ledger, from shapes
    rankwise.load("results/demo").curves                      # a study's results as data frames
    rankwise.load_trained("my_export", "base")                # the weights that a run has kept

`rankwise.optim` has the optimizers. Everything is imported when it is first used: `import rankwise`
loads neither torch nor pandas.
"""

import difflib
import importlib
import importlib.util
import logging
from importlib import metadata

# Where a processor has AVX-512 BF16, bitsandbytes warns at import that it lacks a faster kernel of
# the hub. Nothing here needs that kernel, and peft imports bitsandbytes in every job.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

# Name -> the module that it is in.
_MODULES = {
    "load": "rankwise.library.results",
    "load_trained": "rankwise.training.kept",
    "predict": "rankwise.library.prediction",
    "optim": "rankwise.optim",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module.

    Raises:
        AttributeError: There is no such name; the message says which there are.
        ModuleNotFoundError: A package of an extra is missing; the message names the extra.
    """
    if name == "__version__":
        return metadata.version("rankwise")
    if name not in _MODULES:
        nearest = difflib.get_close_matches(name, _MODULES, n=1)
        hint = f" (nearest: {nearest[0]!r})" if nearest else ""
        raise AttributeError(f"rankwise: got {name!r}, allowed: {', '.join(_MODULES)}{hint}")
    if name == "load" and importlib.util.find_spec("pandas") is None:
        raise ModuleNotFoundError("rankwise.load needs pandas, in the extra rankwise[report]")
    module = importlib.import_module(_MODULES[name])
    return module if name == "optim" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(_MODULES)
