"""Compare published memory of one of several GPUs with the prediction, and write ranks.md.

    python benchmarks/ranks.py

The prediction is made from shapes, without a GPU, of FSDP1 with full sharding, which the published
runs used.
"""

import gc
import itertools
from pathlib import Path
from typing import NamedTuple

from rankwise.measure.memory import account
from rankwise.measure.memory.allocator import OutOfMemory
from rankwise.measure.memory.ledger import ledger, track
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
LIMITS_HEADINGS = ("limit (GB)", "published (GB)", "predicted (GB)", "error (%)")
NOTE = """
One of two GPUs under FSDP1 with full sharding, layers computed again in backward (activation checkpointing), weights in bf16
or NF4. Allocated and reserved are the maxima of torch.cuda. Each run has the loss and the releases of its source. What
several GPUs share does not grow with the batch; by the line through two batch sizes it is:

"""  # noqa: E501 - lines of the file that is written
LIMITS_NOTE = """
Where a prediction is close to what a GPU has, the allocator meets its limit and returns free segments, so that less is reserved.
An RTX 3090 has 24 GiB, of which CUDA and NCCL take a part that is not published. By the limit, it is:

"""  # noqa: E501 - lines of the file that is written
LIMITS_GIB = (21, 21.5, 22, 22.5, 23, 23.5)  # of an RTX 3090, less CUDA's context and NCCL


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
        loop: What its loop and its releases hold, as keys of a profile.
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
    loop: dict


def fms(method: str, options: dict, batch_size: int, published: int) -> Case:
    """A run of Mistral-7B by fms-acceleration, 4,096 tokens.

    scenarios.yaml, defaults.yaml and accelerate.yaml; QLoRA under autocast (`bf16: True`), the
    others without. requirements.txt has transformers 4.48.1 and bitsandbytes 0.43.3. The Trainer's
    checkpoints are around the units, and reentrant.
    """
    rank = 0 if method.startswith("full") else 16
    loop = {
        "attention": "flash",
        "loss_input": "fp32_shifted",
        "precision": "bf16" if method == "qlora" else "fp32",
        "keeps_quantized_inputs": True,
        "keeps_unit_inputs": True,
    }
    return Case(
        "mistral_7b", method, rank, options, batch_size, 4096, ALLOCATED, published, FMS, loop
    )


def answer(
    method: str,
    batch_size: int,
    published_gib: float,
    *,
    tokens: int = 2048,
    meter: str = RESERVED,
) -> Case:
    """A run of Llama-2-7B by Answer.AI on two RTX 3090.

    train.py in bf16, whose loop drops the model's output after the update; transformers 4.37, since
    the README excludes 4.38 and 4.39, and bitsandbytes 0.43.0.
    """
    options = ANSWER_OPTIONS if method == "lora_bf16" else {"compute": "bf16", **ANSWER_OPTIONS}
    loop = {
        "loss_input": "fp32_output",
        "keeps_outputs": "until_update",
        "keeps_quantized_inputs": True,
    }
    published = published_gib * GIB
    return Case(
        "llama_2_7b", method, 64, options, batch_size, tokens, meter, published, ANSWER, loop
    )


LORA = {"options": {"targets": ATTENTION}}
QLORA = {"compute": "bf16", **LORA}
ANSWER_OPTIONS = {"adapter_dtype": "bf16", "options": {"targets": WITHOUT_OUTPUT}}
CASES = [
    fms("full_bf16", {}, 2, 36_225_939_968),
    fms("full_bf16", {}, 4, 36_226_136_576),
    fms("lora_bf16", LORA, 2, 15_144_870_400),
    fms("lora_bf16", LORA, 4, 21_959_827_968),
    fms("qlora", QLORA, 2, 9_424_594_432),
    fms("qlora", QLORA, 4, 15_970_067_968),
    answer("lora_bf16", 1, 8.28, tokens=512, meter=ALLOCATED),
    answer("lora_bf16", 1, 9.16, meter=ALLOCATED),
    answer("lora_bf16", 1, 10.24, tokens=512),
    answer("lora_bf16", 1, 10.22),
    answer("lora_bf16", 4, 16.14),
    answer("lora_bf16", 6, 21.35),
    answer("qlora", 1, 4.98, tokens=512),
    answer("qlora", 1, 5.21),
    answer("qlora", 4, 11.22),
    answer("qlora", 10, 20.97),
]


def request(case: Case) -> dict:
    """The request of a case's ledger."""
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
        "sharding": "fsdp1",
        "override": {case.method: case.options} if case.options else {},
        **case.loop,
    }
    study = {"name": "ranks", "question": "Is it so?", "device": "cpu", "profile": [grid]}
    plan = Plan(study, ROOT)
    (cell,) = plan.cells("ledger")
    return plan.request("ledger", cell)


def predicted(case: Case) -> int:
    """Bytes that one of two GPUs needs."""
    return ledger(request(case))["metrics"][case.meter]


def limited_rows(case: Case) -> list[tuple[str, ...]]:
    """What is reserved of a GPU on which the allocator has a limit."""
    log, _ = track(request(case), "meta", evaluates=False)
    rows = []
    for limit in LIMITS_GIB:
        try:
            reserved = account.simulate(log, limit * GIB).peak_reserved
            numbers = (f"{reserved / GB:.2f}", f"{100 * (reserved / case.published - 1):+.1f}")
        except OutOfMemory:
            numbers = ("does not fit", "")
        rows.append((f"{limit * GIB / GB:.2f}", f"{case.published / GB:.2f}", *numbers))
    return rows


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
        is_larger = larger.batch_size > case.batch_size > 1  # one text has no shifted copy
        grows_evenly = is_larger and case.meter == ALLOCATED
        if not grows_evenly or settings(case) != settings(larger):
            continue
        share = case.batch_size / (larger.batch_size - case.batch_size)
        published = case.published - share * (larger.published - case.published)
        ours = small - share * (large - small)
        error = f"{100 * (ours / published - 1):+.1f}"
        numbers = (f"{published / GB:.2f}", f"{ours / GB:.2f}", error)
        rows.append((case.model, case.method, case.meter.split("_")[1], *numbers))
    return rows


def settings(case: Case) -> tuple[str | int, ...]:
    """All that two cases have in common which differ in their batch alone."""
    return case.model, case.method, case.tokens, case.meter, case.source


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
    largest, _ = max(results, key=lambda result: result[1] * (result[0].meter == RESERVED))
    limits = LIMITS_NOTE + table(LIMITS_HEADINGS, limited_rows(largest))
    (ROOT / "benchmarks/ranks.md").write_text(cases + NOTE + fixed + limits, encoding="utf-8")


if __name__ == "__main__":
    main()
