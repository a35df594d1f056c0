"""Other calculators on the published peaks of published_memory.py. Writes others.md there.

    python -m venv OTHERS && OTHERS/bin/pip install canifinetune fitcheck-llm
    python benchmarks/other_calculators.py --python OTHERS/bin/python

It needs the results that published_memory.py reads. The calculators run in an environment of their
own, by other_calculators_estimates.py; they know LoRA, QLoRA and full fine-tuning of decoders like
Llama, so the other cases are left out.
"""

import argparse
import json
import subprocess
from pathlib import Path

import pandas as pd
from published_memory import BAND, FOLDER, ROOT, predicted

from rankwise.core import config
from rankwise.study.plan import Cell, Plan

STUDY = "config/published_memory.yaml"
FAMILIES = ("llama", "mistral")
# The start of a claim's name -> the GPU that it was measured on: fitcheck's name, and GiB.
GPUS = {
    "published_memory_peft": ("l40s", 48),
    "published_memory_litgpt_hub": ("a10", 24),
    "published_memory_litgpt": ("a100-40", 40),
    "published_memory_fms": ("a100-80", 80),
    "published_memory_torchtune": ("a100-80", 80),
    "published_memory_answer": ("3090", 24),
}
NOTE = """
Errors in percent of the published peak; cases that a calculator cannot express are not counted as
its own. For reserved memory a calculator's estimate is its total less its safety margin, for
allocated memory its total less margin and overhead (context, fragmentation). {versions}.
"""


def main() -> None:
    """Ask the calculators and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="python that has the calculators")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    given = parser.parse_args()
    rows = predicted(given.results)
    plan = Plan(config.read_yaml(ROOT / STUDY, STUDY), ROOT, STUDY)
    cases = {row.claim: case for row in rows.itertuples() if (case := _case(plan, row))}
    script = ROOT / "benchmarks/other_calculators_estimates.py"
    answer = subprocess.run(
        [given.python, str(script)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
    )
    estimates = json.loads(answer.stdout)
    shown = rows[rows["claim"].isin(cases)]
    versions = ", ".join(f"{name} {version}" for name, version in estimates["versions"].items())
    page = _table(shown, estimates["bytes"]) + NOTE.format(versions=versions)
    (FOLDER / "others.md").write_text(page, encoding="utf-8")
    print(page)


def _case(plan: Plan, row: tuple) -> dict | None:
    """The settings of a published peak as the calculators take them; None if they cannot."""
    gpu = next((gpu for start, gpu in GPUS.items() if row.claim.startswith(start)), None)
    if gpu is None:
        return None
    cell = Cell.of_columns(
        {"model": row.model, "dataset": row.dataset, "method": row.method, "rank": int(row.rank)}
    )
    request = plan.request("ledger", cell)
    method = request["method"]
    options = method["options"]
    is_plain_lora = method["module"] == "lora" and not options.get("dora")
    if request["model"]["family"] not in FAMILIES or not (
        is_plain_lora or method["module"] == "full"
    ):
        return None
    modules = request["model"]["modules"]
    return {
        "architecture": {
            "model_type": request["model"]["family"],
            **request["model"]["architecture"],
        },
        "gpu": gpu[0],
        "gpu_gib": gpu[1],
        "method": "full" if method["module"] == "full" else "lora",
        "rank": options.get("rank"),
        "targets": [modules[role]["name"] for role in options.get("targets", ())],
        "weights": method["weights"],
        "batch_size": request["shapes"]["batch_size"],
        "sequence_length_tokens": request["shapes"]["sequence_length_tokens"],
        "checkpointing": request["checkpointing"],
        "flash": request.get("attention") == "flash",
        "is_reserved": row.meter == "peak_reserved_bytes",
    }


def _table(rows: pd.DataFrame, estimates: dict[str, dict[str, float]]) -> str:
    """A Markdown table: a row for Rankwise and each calculator on the cases that it knows."""
    published = rows.set_index("claim")["published_bytes"]
    ours = rows.set_index("claim")["predicted_bytes"]
    head = ["calculator", "cases", "median error (%)", f"within {BAND} %", "ours on the same (%)"]
    lines = [head, ["---", *["---:"] * 4]]
    for name, by_claim in {"Rankwise": ours.to_dict(), **estimates}.items():
        known = pd.Series(by_claim, dtype=float).dropna()
        error = _percent(known, published)
        same = _percent(ours[known.index], published)
        within = f"{(error <= BAND).sum()}"
        cells = [name, str(len(known)), f"{error.median():.1f}", within, f"{same.median():.1f}"]
        lines.append(cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _percent(estimates: pd.Series, published: pd.Series) -> pd.Series:
    """Sizes of the errors, in percent."""
    known = published[estimates.index]
    return 100 * (estimates - known).abs() / known


if __name__ == "__main__":
    main()
