"""Trained models that a study does not keep, because it does not say `keep`: their number and size.

A method that trains the whole model has no adapter, so its runs keep nothing by default. Standard
library only.
"""

from rankwise.execution.job_memory import parameters
from rankwise.study import keep
from rankwise.study.plan import Plan

BYTES = {"bf16": 2}  # of a number that is kept, by the base's storage; others are merged in fp32
FP32_BYTES = 4


def unkept(plan: Plan) -> list[dict]:
    """The runs that keep no weights although nobody has said so.

    Args:
        plan: The plan of a study.

    Returns:
        For each model and size: `model`, `methods` by name, the number of `runs`, and `bytes` of
        the merged model that one run would keep: nearly all of them, as the entry's shapes say.
    """
    runs: dict[tuple[str, int], list[str]] = {}
    for cell in plan.cells("train"):
        model, method = plan.library["models"][cell.model], plan.method("train", cell)
        grid = plan.grids.by_measurement["train"][cell]
        is_said = "keep" in grid or "keep" in plan.study
        if is_said or plan.grids.keep(cell) != keep.NONE or not keep.allowed(method, model):
            continue
        size = parameters(model) * BYTES.get(method["weights"], FP32_BYTES)
        runs.setdefault((cell.model, size), []).append(cell.method_name)
    return [
        {"model": model, "methods": list(dict.fromkeys(names)), "runs": len(names), "bytes": size}
        for (model, size), names in runs.items()
    ]
