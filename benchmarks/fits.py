"""How long predictions of large models take, and how much memory of this machine. Writes fits.md.

    python benchmarks/fits.py

Each row is a process of its own. Processor time and memory are that process's, without the start of
Python and its imports, which take the same time for any model. Nothing asserts these numbers.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEVEN = "llama_2_7b"
# Llama-2-70B (Touvron et al. 2023, arXiv 2307.09288, table 1; its config.json): what differs.
LARGER = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}
LARGER_MATRICES = {
    "query": [8192, 8192],
    "key": [1024, 8192],
    "value": [1024, 8192],
    "output": [8192, 8192],
    "gate": [28672, 8192],
    "up": [28672, 8192],
    "down": [8192, 28672],
}
METHODS = ["full", "lora", "qlora", "galore", "vlorp"]
LENGTH_TOKENS = 1024
MEMORY_GIB = 80
DENSE = ("full", "lora", "galore", "vlorp")  # stored in bf16
NOTE = """
Base in bf16 (QLoRA: NF4), texts of {length} tokens, kernels of CUDA; `fits` finds the largest batch
and the longest text in {memory} GiB. Processor time without imports. {cpu}, {threads} threads;
load of {load:.1f} on {cores} cores at the start.
Versions: torch {torch}, transformers {transformers}, peft {peft}.
"""


def entries() -> dict[str, dict]:
    """Llama-2-70B, described as Llama-2-7B is."""
    from rankwise.core.config import library  # noqa: PLC0415 - imports are not part of a row

    seven = library(ROOT)["models"][SEVEN]
    modules = {
        role: {"name": seven["modules"][role]["name"], "shape": shape}
        for role, shape in LARGER_MATRICES.items()
    }
    architecture = {**seven["architecture"], **LARGER}
    larger = {**seven, "hidden_size": 8192, "architecture": architecture, "modules": modules}
    return {"llama_2_70b": {name: larger[name] for name in larger if name != "weights"}}


def request(measurement: str, model: str, method: str, length: int = LENGTH_TOKENS) -> dict:
    """The request of a ledger, or of `fits`, that is only predicted."""
    from rankwise.study.plan import Plan  # noqa: PLC0415

    grid = {
        "models": [model],
        "datasets": ["wikitext2"],
        "methods": [method],
        "ranks": [8],
        "measurements": [measurement],
        "device": "cuda",
        "measured": False,
        "batch_size": 1,
        "sequence_length_tokens": length,
        "memory_gib": [MEMORY_GIB],
        "override": {method: {"weights": "bf16"}} if method in DENSE else {},
    }
    study = {"name": "speed", "question": "?", "device": "cpu", "profile": [grid]}
    plan = Plan(study, ROOT, added={"models": entries()})
    return plan.request(measurement, plan.cells(measurement)[0])


def measured(what: str) -> None:
    """Print the seconds and bytes of one row, as JSON."""
    from rankwise.measure.memory import fits, ledger  # noqa: PLC0415
    from rankwise.methods.parts.base import method_class  # noqa: PLC0415

    asked = {
        "ledger 7B": [("ledger", SEVEN, "lora")],
        "ledger 7B full": [("ledger", SEVEN, "full")],
        "ledger 70B": [("ledger", "llama_2_70b", "qlora")],
        "fits": [("fits", SEVEN, method) for method in METHODS],
    }[what]
    requests = [request(*case) for case in asked]
    for case in requests:
        method_class(case["method"]["module"])  # imports peft
    ledger.ledger(request("ledger", "tiny_decoder", "qlora", 32))  # imports bitsandbytes
    wall, processor = time.perf_counter(), time.process_time()
    for case in requests:
        {"ledger": ledger.ledger, "fits": fits.fits}[case["measurement"]](case)
    answer = {
        "processor": time.process_time() - processor,
        "wall": time.perf_counter() - wall,
        "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    print(json.dumps(answer))


ROWS = {
    "ledger 7B": "a ledger, Llama-2-7B, LoRA",
    "ledger 7B full": "a ledger, Llama-2-7B, full fine-tuning",
    "ledger 70B": "a ledger, Llama-2-70B, QLoRA",
    "fits": f"`rankwise fits`, Llama-2-7B, {len(METHODS)} methods ({', '.join(METHODS)})",
}


def main() -> None:
    """Measure every row and write the table."""
    load = os.getloadavg()[0]
    lines = [
        "| prediction | processor time (s) | elapsed (s) | host memory (GiB) |",
        "| --- | ---: | ---: | ---: |",
    ]
    for what, label in ROWS.items():
        done = subprocess.run(
            [sys.executable, __file__, what], capture_output=True, text=True, check=True
        )
        row = json.loads(done.stdout.splitlines()[-1])
        lines.append(f"| {label} | {row['processor']:.1f} | {row['wall']:.1f} | {row['gib']:.2f} |")
    note = NOTE.format(
        length=f"{LENGTH_TOKENS:,}",
        memory=MEMORY_GIB,
        cpu=platform.processor() or platform.machine(),
        threads=os.environ.get("OMP_NUM_THREADS", os.cpu_count()),
        load=load,
        cores=os.cpu_count(),
        **{name: metadata.version(name) for name in ("torch", "transformers", "peft")},
    )
    text = "\n".join(lines) + "\n" + note
    (ROOT / "benchmarks/fits.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    measured(sys.argv[1]) if len(sys.argv) > 1 else main()
