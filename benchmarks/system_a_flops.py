"""Published system A's 30 step FLOPs on SST-2, ours in its counting convention, and ours in full. Writes system_a_flops.md.

    python benchmarks/system_a_flops.py

From shapes, without a GPU. The published numbers are those of config/claims.yaml.
"""

from pathlib import Path

import yaml

from rankwise.measure.flops.count import flops
from rankwise.study.plan import Cell, Plan

ROOT = Path(__file__).resolve().parents[1]
COLUMN = "profiler_step_flops"
HEADINGS = (
    "method", "rank", "published", "ours, its convention", "equal", "ours, in full", "in full vs published (%)",
    "attention", "refresh", "additions and scalings", "optimizer by element, in no sum",
)  # fmt: skip
NOTE = """
FLOPs of one step of 32 sequences of 128 tokens, DistilBERT. Its convention is torch's profiler on CUDA: matrix products outside
of fused kernels, and additions and scalings out of place. In full = published + attention + refresh - additions and scalings,
to the FLOP. Attention: the products of the fused kernels. Refresh: what new bases or truncations cost, over their interval.
The optimizer's products are in both numbers, its pointwise operations in neither: the last column, one FLOP a number written.
{equal} of {all} are equal.
"""


def study(claims: list[dict]) -> Plan:
    """A study of the claims' cells."""
    ranks: dict[str, list[int]] = {}
    for claim in claims:
        ranks.setdefault(claim["cell"]["method"], []).append(claim["cell"]["rank"])
    shared = {"models": ["distilbert"], "datasets": ["sst2"], "measurements": ["flops"]}
    grids = [{**shared, "methods": [method], "ranks": some} for method, some in ranks.items()]
    return Plan(
        {
            "name": "system_a",
            "question": "Do its step FLOPs come out?",
            "device": "cpu",
            "profile": grids,
        },
        ROOT,
    )


def row(plan: Plan, claim: dict, label: str) -> tuple:
    """One line of the table.

    Raises:
        ArithmeticError: the parts do not add up to the difference.
    """
    request = plan.request("flops", Cell(**claim["cell"]))
    found, architecture = flops(request)["metrics"], request["model"]["architecture"]
    ours, full = found[COLUMN], found["step_flops"]
    attention = 3 * _attention(request["shapes"], architecture["n_layers"], architecture["dim"])
    refresh = found["optimizer_amortised_flops"] - found["optimizer_flops"]
    additions = found["profiler_elementwise_flops"]
    if full != ours + attention + refresh - additions:
        raise ArithmeticError(
            f"{claim['cell']}: {full} in full is not {ours} + {attention} + {refresh} - {additions}"
        )
    published, parts = (
        claim["published"],
        (attention, refresh, additions, found["optimizer_elementwise_flops"]),
    )
    share = 100 * (full / published - 1)
    return label, claim["cell"]["rank"], published, ours, ours == published, full, share, *parts


def _attention(shapes: dict, layers: int, width: int) -> int:
    """Q K' and the weighted sum of V in a forward pass; the backward pass takes twice as much."""
    return layers * 2 * 2 * shapes["batch_size"] * shapes["sequence_length_tokens"] ** 2 * width


def text(value: object) -> str:
    """A cell of the table."""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return (
        f"{value:+.3f}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )


def main() -> None:
    """Count all cells and write the table."""
    library = yaml.safe_load((ROOT / "config/claims.yaml").read_text(encoding="utf-8"))
    claims = [claim for claim in library.values() if claim["column"] == COLUMN]
    plan = study(claims)
    rows = [
        row(plan, claim, plan.library["methods"][claim["cell"]["method"]]["label"])
        for claim in claims
    ]
    lines = [
        HEADINGS,
        ["---", *["---:"] * (len(HEADINGS) - 1)],
        *([text(value) for value in line] for line in rows),
    ]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    note = NOTE.format(equal=sum(line[4] for line in rows), all=len(rows))
    (ROOT / "benchmarks/system_a_flops.md").write_text(table + note, encoding="utf-8")
    print(table + note)


if __name__ == "__main__":
    main()
