"""The folder of exports: what lies in it, and the job that writes it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from helpers.exported import COMPARISON
from helpers.repository import CLEAN, ROOT, run_snakemake
from rankwise.analysis import tables
from rankwise.checks import preflight
from rankwise.core.config import ConfigError
from rankwise.report import exports
from rankwise.study import jobs, outputs
from rankwise.study.plan import Plan


def test_what_an_earlier_job_left_is_gone(exported: Path) -> None:
    assert {path.name for path in (exported / "system_a").iterdir()} == {"distilbert", "tiny"}
    assert len(list((exported / "system_c").iterdir())) == 4
    assert not list(exported.rglob("*gpt2*"))


def test_the_readme_names_every_file_that_is_there(exported: Path) -> None:
    text = (exported / "README.md").read_text()
    for path in exported.rglob("*.*"):
        name = path.name
        if "system_a" in path.parts:
            # model / method / dataset / the file as the README names it
            name = "/".join(path.relative_to(exported / "system_a").parts[3:])
        pattern = re.sub(r"seed[0-9]+/", "", re.sub(r"r[0-9]+", "r{rank}", name))
        assert name == "README.md" or f"`{pattern}`" in text


def test_a_study_without_results_has_a_readme_alone(tmp_path: Path) -> None:
    exports.exports(
        {"tables": [], "train_samples": {}, "command": "x"}, tmp_path / "exports/README.md"
    )
    assert [path.name for path in (tmp_path / "exports").rglob("*")] == ["README.md"]


def test_tables_of_nothing_but_failures_export_nothing(tmp_path: Path) -> None:
    cell = {"model": "m", "dataset": "d", "method": "full", "rank": 0}
    failed = pd.DataFrame([{**cell, "status": "unsupported", "reason": "no"}])
    empty = pd.DataFrame(columns=["model", "dataset", "method", "rank", "seed"])
    for name, frame in (("memory", failed), ("ledger", failed), ("state", empty)):
        tables.write(frame, tmp_path / "tables" / name)
    request = {"tables": ["memory", "ledger", "state"], "train_samples": {}, "command": "x"}
    exports.exports(request, tmp_path / "exports/README.md")
    assert [path.name for path in (tmp_path / "exports").rglob("*.*")] == ["README.md"]


# The workflow ----------------------------------------------------------------------------------


def test_the_target_is_known_and_a_mistyped_one_refused(plan: Plan) -> None:
    assert "results/demo/exports/README.md" in jobs.targets(plan)
    message = r"results/demo/exports/READMEE\.md.*nearest: results/demo/exports/README\.md"
    with pytest.raises(ConfigError, match=message):
        preflight.check_targets(["results/demo/exports/READMEE.md"], plan)


@pytest.mark.slow
def test_the_workflow_makes_it_from_the_studys_tables_only(plan: Plan, clone: Path) -> None:
    study = ("--configfile", "config/demo.yaml")
    planned = run_snakemake(clone, "-n", "results/demo/exports/README.md", *study)
    assert planned.returncode == 0, planned.stderr
    counts = re.findall(r"^(\w+) +(\d+)$", planned.stdout, re.MULTILINE)
    job_counts = {rule: int(count) for rule, count in counts}
    assert job_counts["exports"] == 1
    assert job_counts["collect"] == len(outputs.export_tables(plan)) >= 5
    assert "figure" not in job_counts
    everything = run_snakemake(clone, "-n", *study)
    assert "exports" not in everything.stdout


def test_the_job_verifies_its_sources_and_writes(
    study: Plan, results: Path, tmp_path: Path
) -> None:
    ignore = shutil.ignore_patterns("exports")
    copy = shutil.copytree(results, tmp_path / study.results, ignore=ignore)
    output = copy / "exports/README.md"
    request = json.dumps(jobs.document(study, outputs.EXPORTS).request)
    command = [sys.executable, str(ROOT / "workflow_scripts/exports.py"), "--request", request]
    command += ["--output", str(output)]
    environment = {**CLEAN, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    file = output.parent / "system_a/distilbert/rsvd/sst2/optimizer_memory_comparison.csv"
    assert file.read_text() == COMPARISON
