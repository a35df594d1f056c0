"""The reference of `rankwise.optim`: one entry an optimizer, filled by mkdocstrings."""

import ast
from pathlib import Path

HEAD = """# rankwise.optim

Ordinary torch optimizers, for a plain loop, accelerate or the Hugging Face Trainer. They need torch
and nothing else of this project. [Methods](../methods/index.md) has the formula of each, what its
state holds, and where it differs from its authors' code.

```python
from rankwise.optim import ProjectedAdam

optimizer = ProjectedAdam(model.parameters(), lr=1e-3, rank=16, projector="rsvd", release=True)
```

With `release=True` a gradient is projected as soon as backward has computed it, and then freed.
Accumulation over micro-batches and `optimizer.clip_grad_norm_` work on the projections.

"""


def page(root: Path) -> str:
    """A page of mkdocstrings' directives."""
    names = [f"rankwise.optim.{module}.{name}" for module, name in optimizers(root)]
    return HEAD + "\n".join(f"::: {name}\n" for name in names)


def optimizers(root: Path) -> list[tuple[str, str]]:
    """(module, class) of every file in optim/ that holds a class called like the file."""
    found = []
    for path in sorted((root / "src/rankwise/optim").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
        wanted = path.stem.replace("_", "")
        found += [(path.stem, name) for name in classes if name.lower() == wanted]
    return found
