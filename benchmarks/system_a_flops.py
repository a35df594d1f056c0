"""Compare published system A's 30 step FLOPs on SST-2 with ours, and write system_a_flops.md.

    python benchmarks/system_a_flops.py

Ours are counted from shapes, without a GPU: in its counting convention, and in full. The published
numbers are those of config/claims.yaml.
"""

from pathlib import Path
from typing import NamedTuple

from rankwise.core import config
from rankwise.measure.flops.count import flops
from rankwise.study.claims import expand
from rankwise.study.plan import Cell, Plan

ROOT = Path(__file__).resolve().parents[1]
CLAIMS = "a_step_flops"  # what the names of the claims start with
HEADINGS = (
    "method", "rank", "published", "ours, its convention", "equal", "ours, in full",
    "in full vs published (%)", "attention", "refresh", "additions and scalings",
    "optimizer by element, in no sum",
)  # fmt: skip
NOTE = """
FLOPs of one step of 32 sequences of 128 tokens, DistilBERT. Its convention is torch's profiler on CUDA: matrix products outside
of fused kernels, and additions and scalings out of place. In full = published + attention + refresh - additions and scalings,
to the FLOP. Attention: the products of the fused kernels. Refresh: what new bases or truncations cost, over their interval.
The optimizer's products are in both numbers, its pointwise operations in neither: the last column, one FLOP a number written.
{equal} of {all} are equal.
"""  # noqa: E501 - lines of the file that is written


class Row(NamedTuple):
    """One line of the table; the fields are the columns of HEADINGS."""

    method: str
    rank: int
    published: int
    ours: int
    is_equal: bool
    full: int
    full_vs_published_percent: float
    attention: int
    refresh: int
    additions: int
    optimizer_elementwise: int


def study(claims: list[dict]) -> Plan:
    """A study of the claims' cells."""
    ranks_by_method: dict[str, list[int]] = {}
    for claim in claims:
        ranks_by_method.setdefault(claim["cell"]["method"], []).append(claim["cell"]["rank"])
    shared = {"models": ["distilbert"], "datasets": ["sst2"], "measurements": ["flops"]}
    grids = []
    for method, ranks in ranks_by_method.items():
        grids.append({**shared, "methods": [method], "ranks": ranks})
    question = "Do its step FLOPs come out?"
    return Plan({"name": "system_a", "question": question, "device": "cpu", "profile": grids}, ROOT)


def compare(plan: Plan, claim: dict) -> Row:
    """Count one cell and compare it with its claim.

    Raises:
        ArithmeticError: The parts do not add up to the difference.
    """
    cell, published = claim["cell"], claim["published"]
    request = plan.request("flops", Cell(**cell))
    counted = flops(request)["metrics"]
    ours, full = counted["profiler_step_flops"], counted["step_flops"]

    architecture = request["model"]["architecture"]
    forward_attention = attention_flops(
        request["shapes"], architecture["n_layers"], architecture["dim"]
    )
    attention = 3 * forward_attention  # backward takes twice as much as forward
    refresh = counted["optimizer_amortised_flops"] - counted["optimizer_flops"]
    additions = counted["profiler_elementwise_flops"]
    if full != ours + attention + refresh - additions:
        raise ArithmeticError(
            f"{cell}: {full} in full is not {ours} + {attention} + {refresh} - {additions}"
        )
    return Row(
        method=plan.library["methods"][cell["method"]]["label"],
        rank=cell["rank"],
        published=published,
        ours=ours,
        is_equal=ours == published,
        full=full,
        full_vs_published_percent=100 * (full / published - 1),
        attention=attention,
        refresh=refresh,
        additions=additions,
        optimizer_elementwise=counted["optimizer_elementwise_flops"],
    )


def attention_flops(shapes: dict, layers: int, width: int) -> int:
    """FLOPs of Q K' and of the weighted sum of V, in a forward pass."""
    one_product = 2 * shapes["batch_size"] * shapes["sequence_length_tokens"] ** 2 * width
    return layers * 2 * one_product


def text(value: object) -> str:
    """A cell of the table."""
    if isinstance(value, bool):  # first, for a bool is an int
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return f"{value:+.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table, and what its columns mean."""
    lines = [HEADINGS, ["---", *["---:"] * (len(HEADINGS) - 1)]]
    lines += [[text(value) for value in row] for row in rows]
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    equal = sum(row.is_equal for row in rows)
    return body + NOTE.format(equal=equal, all=len(rows))


def main() -> None:
    """Count all cells and write the table."""
    claims = []
    for name, claim in expand(config.library(ROOT)["claims"]).items():
        # The mislabelled claims publish five of the same steps again, under wrong names.
        if name.startswith(CLAIMS) and "mislabelled" not in name:
            claims.append(claim)
    plan = study(claims)
    written = table([compare(plan, claim) for claim in claims])
    (ROOT / "benchmarks/system_a_flops.md").write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
