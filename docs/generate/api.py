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

Options are checked in the constructor and in every parameter group. A wrong value, a misspelt
choice or an unknown key is a `ValueError` that says what is allowed. Sparse gradients, complex and
float16 parameters are refused where a step would be wrong.

With `release=True` a gradient is used as soon as backward has computed it, and then freed:
`ProjectedAdam` and `ProjFactor` gather its projection for the step, all others step at once.

| with release | steps at once | gathers projections |
| --- | --- | --- |
| several backwards a step | an error | exact |
| clipping from outside (torch, accelerate, Trainer) | an error, below the norm | of projections |
| `GradScaler` | an error: use bfloat16 | an error: use bfloat16 |
| another optimizer on the same parameters | an error | an error |
| after `unrelease()`, or if deleted | gradients accumulate as usual | the same |
| a copy or a pickle | releases the gradients of its own parameters | the same |

So in the Trainer an optimizer that steps at once needs `max_grad_norm=0` and
`gradient_accumulation_steps=1`; the norms that the Trainer logs are the true ones.

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
