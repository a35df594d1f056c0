"""Compare published memory of one of several GPUs with the prediction, and write ranks.md.

    python benchmarks/ranks.py

The prediction is made from shapes, without a GPU. The published runs used FSDP1, whose parameters
of a layer are one flat tensor; ours is FSDP2. Both gather one layer while another computes.
"""

import gc
import itertools
from pathlib import Path
from typing import NamedTuple

from rankwise.measure.memory.ledger import ledger
from rankwise.study.plan import Plan

ROOT = Path(__file__).resolve().parents[1]
FMS = "foundation-model-stack/fms-acceleration@876e2ed scripts/benchmarks/refs/a100_80gb.csv"
ANSWER = "AnswerDotAI/fsdp_qlora@05ed9f2 benchmarks_03_2024.md"
GB, GIB = 10**9, 2**30
ALLOCATED, RESERVED = "peak_allocated_bytes", "peak_reserved_bytes"
ATTENTION = ["query", "key", "value", "output"]
WITHOUT_OUTPUT = ["query", "key", "value", "gate", "up", "down"]
HEADINGS = (
    "model", "method", "GPUs", "batch of one", "tokens", "meter", "published (GB)",
    "predicted (GB)", "error (%)", "source",
)  # fmt: skip
FIXED_HEADINGS = (
    "model", "method", "meter", "fixed, published (GB)", "fixed, predicted (GB)", "error (%)",
)  # fmt: skip
NOTE = """
One of two GPUs under full sharding, layers computed again in backward (activation checkpointing), weights in bf16 or NF4. The
published runs used FSDP1, the prediction is of FSDP2. Allocated and reserved are the maxima of torch.cuda. What several GPUs
share does not grow with the batch; by the line through two batch sizes it is:

"""  # noqa: E501 - lines of the file that is written


class Case(NamedTuple):
    """A published run on two GPUs.

    Attributes:
        model: The entry of the model.
        method: The entry of the method.
        rank: Of its adapters; 0 without.
        options: Changes of the method's entry.
        batch_size: Sequences of one process.
        tokens: Of a sequence.
        meter: The column of the ledger that the publication measures.
        published: Bytes.
        source: Repository, commit and path.
    """

    model: str
    method: str
    rank: int
    options: dict
    batch_size: int
    tokens: int
    meter: str
    published: float
    source: str


def fms(method: str, options: dict, batch_size: int, published: int) -> Case:
    """A run of Mistral-7B by fms-acceleration, 4,096 tokens (scenarios.yaml, defaults.yaml)."""
    rank = 0 if method.startswith("full") else 16
    return Case("mistral_7b", method, rank, options, batch_size, 4096, ALLOCATED, published, FMS)


def answer(method: str, options: dict, batch_size: int, published_gib: float) -> Case:
    """A run of Llama-2-7B by Answer.AI, 2,048 tokens, on two RTX 3090."""
    published = published_gib * GIB
    return Case("llama_2_7b", method, 64, options, batch_size, 2048, RESERVED, published, ANSWER)


LORA = {"options": {"targets": ATTENTION}}
QLORA = {"weights": "nf4", "compute": "bf16", **LORA}
ANSWER_LORA = {"adapter_dtype": "bf16", "options": {"targets": WITHOUT_OUTPUT}}
ANSWER_QLORA = {"weights": "nf4", "compute": "bf16", **ANSWER_LORA}
CASES = [
    fms("lora_bf16", LORA, 2, 15_144_870_400),
    fms("full_bf16", {}, 2, 36_225_939_968),
    fms("qlora", QLORA, 2, 9_424_594_432),
    answer("lora_bf16", ANSWER_LORA, 4, 16.14),
    answer("qlora", ANSWER_QLORA, 4, 11.22),
    fms("lora_bf16", LORA, 4, 21_959_827_968),
    fms("full_bf16", {}, 4, 36_226_136_576),
    fms("qlora", QLORA, 4, 15_970_067_968),
    answer("lora_bf16", ANSWER_LORA, 6, 21.35),
    answer("qlora", ANSWER_QLORA, 10, 20.97),
]


def predicted(case: Case) -> int:
    """Bytes that one of two GPUs needs."""
    grid = {
        "models": [case.model],
        "datasets": ["wikitext2"],
        "methods": [case.method],
        "ranks": [case.rank or 8],
        "measurements": ["ledger"],
        "measured": False,
        "device": "cuda",
        "batch_size": 2 * case.batch_size,
        "sequence_length_tokens": case.tokens,
        "checkpointing": True,
        "processes": 2,
        "sharding": "fsdp2",
        "override": {case.method: case.options} if case.options else {},
    }
    study = {"name": "ranks", "question": "Is it so?", "device": "cpu", "profile": [grid]}
    plan = Plan(study, ROOT)
    (cell,) = plan.cells("ledger")
    return ledger(plan.request("ledger", cell))["metrics"][case.meter]


def row(case: Case, ours: float) -> tuple[str, ...]:
    """A line of the table: a case and the bytes that are predicted."""
    return (
        case.model,
        f"{case.method} r{case.rank}" if case.rank else case.method,
        "2",
        str(case.batch_size),
        f"{case.tokens:,}",
        case.meter.split("_")[1],
        f"{case.published / GB:.2f}",
        f"{ours / GB:.2f}",
        f"{100 * (ours / case.published - 1):+.1f}",
        case.source,
    )


def fixed_rows(results: list[tuple[Case, int]]) -> list[tuple[str, ...]]:
    """What does not grow with the batch, by the line through two cases with the same settings.

    Args:
        results: Cases, and the bytes that are predicted.
    """
    rows = []
    for (case, small), (larger, large) in itertools.combinations(results, 2):
        if (case.model, case.method, case.source) != (larger.model, larger.method, larger.source):
            continue
        share = case.batch_size / (larger.batch_size - case.batch_size)
        published = case.published - share * (larger.published - case.published)
        ours = small - share * (large - small)
        error = f"{100 * (ours / published - 1):+.1f}"
        numbers = (f"{published / GB:.2f}", f"{ours / GB:.2f}", error)
        rows.append((case.model, case.method, case.meter.split("_")[1], *numbers))
    return rows


def table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Predict all cases and write both tables."""
    results = []
    for case in CASES:
        results.append((case, predicted(case)))
        gc.collect()
        print(*row(*results[-1]), flush=True)
    cases = table(HEADINGS, [row(*result) for result in results])
    fixed = table(FIXED_HEADINGS, fixed_rows(results))
    (ROOT / "benchmarks/ranks.md").write_text(cases + NOTE + fixed, encoding="utf-8")


if __name__ == "__main__":
    main()
