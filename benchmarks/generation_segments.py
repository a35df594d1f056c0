"""Segments of peft's evaluations beside those of training. Writes published_memory/generation.md.

    python benchmarks/generation_segments.py

Prefix tuning with 200 tokens reserved more than its steps do (config/claims.yaml). Here an
evaluation as in that comparison (method_comparison/MetaMathQA, data.py and run.py at 5d602fd)
follows a step: 50 texts of GSM8K, of which the longest has 120 tokens of Llama 3's tokenizer, and
300 new tokens each. The lengths of the step's texts are assumed: those before an evaluation are not
published.
"""

import gc
from pathlib import Path

import pandas as pd
import yaml

from rankwise.measure.memory.ledger import ledger
from rankwise.study.plan import Plan

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "benchmarks/published_memory/generation.md"
STUDY = "config/published_memory.yaml"
CLAIMS = ROOT / "benchmarks/published_memory/claims.csv"
GB = 10**9
EVALUATION = {"eval_batch_size": 50, "prompt_length_tokens": 120, "generated_tokens": 300}
LENGTHS = (400, 640)
METHODS = {  # method and rank -> the published peak
    ("prefix_tuning", 200): "published_memory_peft_prefix_tuning_r200",
    ("prefix_tuning", 50): "published_memory_peft_prefix_tuning_50",
    ("lora", 32): "published_memory_peft_lora_r32",
}
HEADINGS = (
    "method",
    "tokens of the step",
    "the step reserves (GB)",
    "with the evaluation (GB)",
    "published (GB)",
)


def predicted(grid: dict, method: str, rank: int, tokens: int) -> dict:
    """Metrics of a step on texts of a length, and an evaluation after it.

    Args:
        grid: That of peft's runs in the study.
        method: Its entry.
        rank: Its rank.
        tokens: Of each text.
    """
    options = {"options": {"dropout": 0.0}} if method == "lora" else {}
    changed = {"methods": [method], "ranks": [rank], "sequence_length_tokens": tokens}
    override = {method: {"weights": "bf16", **options}}
    own = {**grid, **changed, **EVALUATION, "override": override}
    study = {"name": "segments", "question": "Is it so?", "device": "cpu", "profile": [own]}
    plan = Plan(study, ROOT)
    (cell,) = plan.cells("ledger")
    return ledger(plan.request("ledger", cell))["metrics"]


def main() -> None:
    """Predict all cases and write the table."""
    grid = yaml.safe_load((ROOT / STUDY).read_text(encoding="utf-8"))["profile"][0]
    published = pd.read_csv(CLAIMS).set_index("claim")["published"].astype(float)
    lines = [HEADINGS, ["---"] + ["---:"] * (len(HEADINGS) - 1)]
    for (method, rank), claim in METHODS.items():
        for tokens in LENGTHS:
            metrics = predicted(grid, method, rank, tokens)
            reserved = [
                f"{metrics[name] / GB:.2f}"
                for name in ("peak_reserved_bytes", "evaluation_reserved_bytes")
            ]
            peak = f"{published[claim] / GB:.2f}"
            lines.append((f"{method} {rank}", str(tokens), *reserved, peak))
            print(*lines[-1], flush=True)
            gc.collect()
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
