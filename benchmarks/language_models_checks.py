"""Check language models from end to end against others' code, and write language_models_checks.md.

    RANKWISE_DATA=DATA RANKWISE_STORIES260K=STORIES python benchmarks/language_models_checks.py

A small pretrained Llama (stories260K) is trained on a part of WikiText-2 and evaluated on the first
questions of real files, by the functions that the workflow's jobs call. Four things are compared:
perplexity, and the harness's likelihoods, with a computation by transformers and torch alone; kept
adapters, opened by plain peft, with the scores of their runs; two processes with one.
"""

import functools
import gzip
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.nn.functional import log_softmax

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

FILE = ROOT / "benchmarks/language_models_checks.md"
MODEL, DATASET, LENGTH = "stories260k", "wikitext2_part", 128
LINES = {"train": ("train.txt.gz", 300), "valid": ("valid.txt", 120)}  # of WikiText-2's files
ADAPTERS = ("lora", "dora", "hira", "prompt_tuning")
PROCESSES = ("full", "lora", "rsvd", "vlorp")  # cases of tests/helpers/process_cases.py
# Tasks of real files -> questions (of MMLU, of each subject).
LIMITS = {
    "arc_easy_files": 20,
    "arc_challenge_files": 20,
    "openbookqa_files": 20,
    "boolq_files": 20,
    "gsm8k_files": 2,
    "mmlu_files": 1,
}
# Tasks whose likelihoods are computed again -> the prompt of a question.
PROMPTS = {
    "arc_easy_files": "Question: {}\nAnswer:",
    "arc_challenge_files": "Question: {}\nAnswer:",
    "openbookqa_files": "{}",
}
STUDY = {
    "name": "language_models_checks",
    "question": "?",
    "device": "cpu",
    "schedule": {"updates": 5, "batch_size": 4, "eval_batch_size": 8, "max_gradient_norm": None},
}

Table = tuple[str, list[str], list[list[object]]]  # what it shows, heads, rows


# Runs ---------------------------------------------------------------------------------------------


def study() -> dict:
    """The study: a frozen model that is evaluated, and methods whose adapters are kept."""
    grid = {"models": [MODEL], "datasets": [DATASET], "seeds": [0]}
    rates = {name: {"learning_rate": 1e-2} for name in ADAPTERS}  # a few updates must be seen
    kept = {**grid, "methods": list(ADAPTERS), "ranks": [4], "keep": "adapter", "override": rates}
    frozen = {**grid, "methods": ["frozen"]}
    evaluate = [
        {"tasks": [name], "methods": ["frozen"], "limit": limit} for name, limit in LIMITS.items()
    ]
    return {**STUDY, "train": [frozen, kept], "evaluate": evaluate}


def entries(root: Path) -> dict:
    """The repository's entries, and a dataset of the first lines of WikiText-2."""
    from rankwise.core import paths  # noqa: PLC0415 - torch's threads are set first
    from rankwise.core.config import library  # noqa: PLC0415
    from rankwise.core.schemas import check  # noqa: PLC0415

    source = Path(os.environ["RANKWISE_DATA"]) / "wikitext2"
    for split, (name, count) in LINES.items():
        with (gzip.open if name.endswith(".gz") else open)(source / name, "rb") as file:
            head = b"".join(itertools.islice(file, count))
        (root / f"{split}.txt").write_bytes(head)
    entry = {
        "task": "language_modelling",
        "files": {"folder": str(root), "format": "text"},
        "splits": {"train": {"path": "train.txt"}, "validation": {"path": "valid.txt"}},
        "report_split": "validation",
        "text": "text",
        "max_length_tokens": LENGTH,
        "selection_rows": 20,
    }
    found = library(ROOT)
    schema = paths.SCHEMAS / "datasets.schema.yaml"
    found["datasets"] |= check({DATASET: entry}, schema, "datasets")
    return found


class Runs:
    """The results of the study, made when they are asked for.

    Args:
        root: An empty folder; the working directory.
    """

    def __init__(self, root: Path):
        from helpers import kept_runs  # noqa: PLC0415 - its imports take seconds

        self.root = root
        self.plan = kept_runs.planned(study(), entries(root), root)

    @functools.cache  # noqa: B019 - lives as long as the script
    def trained(self, method: str) -> Path:
        """The file of a run's result."""
        from helpers import kept_runs  # noqa: PLC0415

        (cell,) = [cell for cell in self.plan.cells("train") if cell.method == method]
        return kept_runs.run(self.plan, self.root, cell)

    def evaluated(self, name: str) -> dict:
        """The result of an evaluation of the frozen model."""
        from rankwise.evaluation.run import evaluate  # noqa: PLC0415

        self.trained("frozen")
        cells = self.plan.cells("evaluate")
        (cell,) = [cell for cell in cells if cell.evaluation == name]
        return evaluate(self.plan.request("evaluate", cell))

    def reloaded(self) -> dict[str, list[float]]:
        """Method -> losses of the reported examples, in a process with peft and no Rankwise."""
        from helpers import kept_runs  # noqa: PLC0415

        files = {method: self.trained(method) for method in ADAPTERS}
        inputs = self.root / "rows.json"
        (cell,) = [cell for cell in self.plan.cells("train") if cell.method == ADAPTERS[0]]
        kept_runs.write_inputs(self.plan, self.root, cell, inputs)
        base = kept_runs.base_folder(self.plan, self.root, MODEL)
        shared = {"base": str(base), "classes": 0, "rows": json.loads(inputs.read_text())}
        cases = [{**shared, "folder": str(file.parent / "adapter")} for file in files.values()]
        command = [sys.executable, str(ROOT / "tests/helpers/reload_kept.py")]
        done = subprocess.run(
            command, input=json.dumps(cases), capture_output=True, text=True, check=True
        )
        return dict(zip(files, json.loads(done.stdout.splitlines()[-1]), strict=True))


def read(file: Path) -> dict:
    """A result."""
    return json.loads(file.read_text(encoding="utf-8"))


# By transformers and torch alone ------------------------------------------------------------------


@functools.cache
def plain() -> tuple:
    """The model and its tokenizer as transformers loads them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    folder = os.environ["RANKWISE_STORIES260K"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def log_likelihoods(ids: list[int], first: int) -> torch.Tensor:
    """The log-likelihood in nats of each token from `first` on, given those before it, in fp64."""
    model, _ = plain()
    logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    scored = torch.tensor(ids[first:])
    return log_softmax(logits[first - 1 : -1], -1).gather(1, scored[:, None])[:, 0]


def perplexity(file: Path) -> float:
    """Exp of the mean loss of a text, in windows that do not overlap."""
    _, tokenizer = plain()
    stream: list[int] = []
    with file.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            stream += tokenizer(line, add_special_tokens=False)["input_ids"]
    parts = [stream[start : start + LENGTH] for start in range(0, len(stream), LENGTH)]
    scored = [log_likelihoods(part, 1) for part in parts if len(part) > 1]
    return math.exp(-torch.cat(scored).mean().item())


def of_choices(context: str, choices: Iterable[str]) -> list[float]:
    """The log-likelihood of each choice behind its question; both are tokenised together."""
    _, tokenizer = plain()
    before = len(tokenizer(context, add_special_tokens=False)["input_ids"])
    found = []
    for choice in choices:
        ids = tokenizer(f"{context} {choice}", add_special_tokens=False)["input_ids"]
        found.append(log_likelihoods(ids, before).sum().item())
    return found


# Tables -------------------------------------------------------------------------------------------


def of_perplexity(runs: Runs) -> Table:
    """Perplexity beside an independent computation."""
    ours = read(runs.trained("frozen"))["metrics"]["perplexity"]
    other = perplexity(runs.root / "valid.txt")
    row = [f"{ours:.9g}", f"{other:.9g}", f"{abs(ours / other - 1):.1e}"]
    heads = ["perplexity", "by transformers alone", "relative difference"]
    text = f"Frozen {MODEL}, {LINES['valid'][1]} lines of WikiText-2, windows of {LENGTH} tokens:"
    return text, heads, [row]


def of_harness(runs: Runs, results: dict[str, dict]) -> Table:
    """The harness's likelihoods and accuracies beside an independent computation."""
    from rankwise.evaluation.files import documents  # noqa: PLC0415

    rows = []
    for name, prompt in PROMPTS.items():
        (cell,) = [cell for cell in runs.plan.cells("evaluate") if cell.evaluation == name]
        entry = runs.plan.request("evaluate", cell)["evaluation"]
        asked = documents(entry, "test")[: LIMITS[name]]
        ours, right, apart = results[name]["examples"], [], 0.0
        for document, harness in zip(asked, ours["log_likelihoods_nats"], strict=True):
            plain_sums = of_choices(prompt.format(document["question"]), document["choices"])
            pairs = zip(plain_sums, harness, strict=True)
            apart = max(apart, *(abs(one - other) for one, other in pairs))
            best = max(range(len(plain_sums)), key=plain_sums.__getitem__)
            right.append(float(best == document["gold"]))
        same = sum(
            one == other for one, other in zip(right, ours["accuracy_fraction"], strict=True)
        )
        rows.append([name, len(asked), f"{apart:.1e}", f"{same} of {len(asked)}"])
    heads = ["task", "questions", "largest difference of a log-likelihood (nats)", "same score"]
    return "The harness's likelihoods, beside sums of log-softmax by torch alone:", heads, rows


def of_tasks(runs: Runs, results: dict[str, dict]) -> Table:
    """What the frozen model reaches on real files, in each task's main metric."""
    metrics, rows = runs.plan.evaluations.main_metrics(), []
    for name, result in results.items():
        (main,) = [row for row in result["rows"] if row["metric"] == metrics[name]]
        cut = result["metrics"]["truncated_rows"]
        score = f"{100 * main['score_fraction']:.1f}"
        rows.append([name, main["samples"], main["metric"], score, cut])
    heads = ["task", "questions", "metric", "score (%)", "prompts cut"]
    return f"Real files from end to end, frozen {MODEL}, each with its limit:", heads, rows


def of_adapters(runs: Runs) -> Table:
    """Losses of adapters that plain peft opens, beside those of their runs."""
    rows = []
    for method, again in runs.reloaded().items():
        stored = read(runs.trained(method))["examples"]["loss_nats"]
        pairs = list(zip(again, stored, strict=True))
        worst = max(abs(other - own) / own for other, own in pairs)
        rows.append([method, len(pairs), f"{worst:.1e}"])
    heads = ["method", "examples", "largest relative difference of a loss"]
    return "Adapters in a process with peft alone, beside the scores of their runs:", heads, rows


def of_processes(folder: Path) -> Table:
    """Weights and metrics that two processes reach, beside those of one."""
    command = [sys.executable, __file__, "--processes", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    rows = []
    for name in PROCESSES:
        single = read(folder / f"{name} single/single.json")
        both = [read(folder / f"{name} ddp/{process}.json") for process in (0, 1)]
        apart, largest = 0.0, 0.0
        for key, values in single["weights"].items():
            one = torch.tensor(values, dtype=torch.float64)
            largest = max(largest, one.abs().max().item())
            for other in both:
                two = torch.tensor(other["weights"][key], dtype=torch.float64)
                apart = max(apart, (one - two).abs().max().item())
        losses = [result["metrics"]["eval_loss_nats"] for result in (single, *both)]
        spread = max(losses) - min(losses)
        rows.append([name, f"{apart:.1e}", f"{largest:.3g}", f"{spread:.1e}"])
    heads = [
        "method",
        "largest difference of a weight",
        "largest weight",
        "spread of the loss over 7 examples (nats)",
    ]
    text = "Two processes (gloo, DDP) beside one with the same global batch, a BERT in fp64:"
    return text, heads, rows


def in_processes(folder: Path) -> None:
    """Train PROCESSES in two processes, then in one; before that torch must not have computed."""
    from helpers import process_cases  # noqa: PLC0415 - it forks, so it has a process of its own

    os.chdir(folder)
    calls = {name: functools.partial(process_cases.train, name) for name in PROCESSES}
    status = process_cases.in_two({folder / f"{name} ddp": call for name, call in calls.items()})
    if status:
        sys.exit(status)
    process_cases.save_each({folder / f"{name} single": call for name, call in calls.items()})


def written(table: Table) -> str:
    """A table as Markdown, under its text."""
    text, heads, rows = table
    is_number = [not isinstance(value, str) or value[:1].isdigit() for value in rows[0]]
    lines = [heads, ["---:" if number else "---" for number in is_number], *rows]
    return f"{text}\n\n" + "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def main() -> None:
    """Run everything, and write the file."""
    if sys.argv[1:2] == ["--processes"]:
        in_processes(Path(sys.argv[2]))
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "processes").mkdir()
        processes = of_processes(folder / "processes")
        os.chdir(folder)
        runs = Runs(folder)
        results = {name: runs.evaluated(name) for name in LIMITS}
        tables = [
            of_perplexity(runs),
            of_harness(runs, results),
            of_tasks(runs, results),
            of_adapters(runs),
            processes,
        ]
        os.chdir(ROOT)
    note = f"CPU, one thread, torch {torch.__version__}; {STUDY['schedule']['updates']} updates.\n"
    FILE.write_text("\n".join([*map(written, tables), note]), encoding="utf-8")


if __name__ == "__main__":
    main()
