"""What `deterministic: true` costs, and how far results of two kinds of CPU differ.

    python benchmarks/determinism.py results/demo/runs/tiny/*/*/r*/seed0/*/train.json
    python benchmarks/publish.py

The cost is that of training steps with deterministic kernels and without, in turns, on a CPU; only
the ratio of the medians means anything. For the difference, each training is made again from its
own result, with torch's kernels for other instruction sets. Writes determinism.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from rankwise.core.compare import (
    EXAMPLES,
    MOST_TELLING,
    NOT_REPRODUCIBLE,
    differences,
    tolerance_of,
)
from rankwise.core.kernels import kernels

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "benchmarks/determinism.md"
CAPABILITIES = ("default", "avx2", "avx512")  # values of ATEN_CPU_CAPABILITY on x86
LEFT_OUT = (*NOT_REPRODUCIBLE, "weights")  # of kept weights only the digest is in a result
TURNS, STEPS = 15, 5


def train(request: dict, folder: Path, capability: str = "") -> dict:
    """Make a training again, in a process of its own."""
    asked, output = folder / "request.json", folder / "train.json"
    asked.write_text(json.dumps({"request": request}), encoding="utf-8")
    variables = {**os.environ, "OMP_NUM_THREADS": str(request["cpu_threads"])}
    if capability:
        variables["ATEN_CPU_CAPABILITY"] = capability
    script = [sys.executable, ROOT / "workflow_scripts/train.py"]
    subprocess.run(
        [*script, "--request", f"@{asked}", "--output", output],
        env=variables,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return json.loads(output.read_text(encoding="utf-8"))


def cost_rows() -> list[tuple]:
    """CPU seconds of training steps with deterministic kernels and without, in turns."""
    encoder = BertConfig(
        vocab_size=2000, hidden_size=128, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=512,
    )  # fmt: skip
    decoder = LlamaConfig(
        vocab_size=2000, hidden_size=128, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=512,
    )  # fmt: skip
    return [
        cost_row("encoder (BERT)", BertForMaskedLM, encoder),
        cost_row("decoder (Llama)", LlamaForCausalLM, decoder),
    ]


def cost_row(what: str, model_class: type[PreTrainedModel], config: PretrainedConfig) -> tuple:
    """Median CPU seconds of `STEPS` steps, their ratio, and whether the losses are the same."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    losses = set()
    for turn in range(TURNS + 1):  # the first one warms up
        for mode, of_mode in seconds.items():
            start = time.process_time()
            with kernels({"deterministic": mode}):
                losses.add(loss_after_steps(model_class(config)))
            if turn:
                of_mode.append(time.process_time() - start)
    asked, otherwise = (statistics.median(seconds[mode]) for mode in (True, False))
    same = "yes" if len(losses) == 1 else "no"
    return what, f"{asked:.3f}", f"{otherwise:.3f}", f"{asked / otherwise:.2f}", same


def loss_after_steps(model: PreTrainedModel) -> float:
    """The loss after some steps of AdamW, from weights and on batches that are always the same."""
    torch.manual_seed(0)
    with torch.no_grad():
        for param in model.parameters():
            param.normal_(std=0.02)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _step in range(STEPS):
        ids = torch.randint(0, 2000, (16, 32))
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def cpu_rows(request: dict, folder: Path) -> list[tuple]:
    """The largest relative differences between each two instruction sets.

    A processor without an instruction set gets the kernels of a lower one, and no row.
    """
    results = {}
    for capability in CAPABILITIES:
        result = train(request, folder, capability)
        results.setdefault(result["environment"]["cpu_capability"], numbers(result))
    first, *others = results
    rows = []
    for other in others:
        found = [
            (relative(one.first, one.second), one.key)
            for one in differences(results[first], results[other])
        ]
        for part in ("means", EXAMPLES):
            of_examples = part == EXAMPLES
            some = [one for one in found if (one[1].partition(".")[0] == EXAMPLES) == of_examples]
            largest, key = max(some, default=(0.0, "none differs"))
            shown = ".".join(word for word in key.split(".") if not word.isdigit())
            pair = f"{first}, {other}"
            allowed = f"{tolerance_of(part):g}"
            rows.append((*name(request), pair, part, f"{largest:.1e}", shown, allowed))
    return rows


def relative(first: object, second: object) -> float:
    """The relative difference of two numbers; infinite for anything else that differs."""
    if not (isinstance(first, float) and isinstance(second, float)):
        return float("inf")
    return abs(first - second) / max(abs(first), abs(second))


def numbers(result: dict) -> dict:
    """What two correct jobs share, as `rankwise collect` compares it."""
    kept = {key: value for key, value in result.items() if key not in LEFT_OUT}
    kept["history"] = [
        {key: value for key, value in row.items() if not key.endswith("_s")}
        for row in result["history"]
    ]
    return {key: kept[key] for key in sorted(kept, key=lambda key: key not in MOST_TELLING)}


def name(request: dict) -> tuple[str, int]:
    """The method of a request, and its rank."""
    return request["cell"]["method"], request["cell"]["rank"]


def table(heads: tuple[str, ...], rows: list[tuple]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, help="results of deterministic trainings")
    torch.set_num_threads(1)
    costs, cpus = cost_rows(), []
    for file in parser.parse_args().results:
        request = json.loads(file.read_text(encoding="utf-8"))["request"]
        with tempfile.TemporaryDirectory() as folder:
            cpus += cpu_rows(request, Path(folder))
    heads = ("model", "deterministic (CPU s)", "otherwise (CPU s)", "ratio", "same loss")
    text = table(heads, costs)
    heads = ("method", "rank", "kernels", "of", "largest relative difference", "in", "allowed")
    FILE.write_text(f"{text}\n{table(heads, cpus)}", encoding="utf-8")


if __name__ == "__main__":
    main()
