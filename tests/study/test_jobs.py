"""The list of a study's jobs is the list that the real workflow makes of it."""

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from helpers.repository import run_snakemake
from rankwise.core import documents, provenance
from rankwise.study import jobs
from rankwise.study.jobs import PlannedJob
from rankwise.study.plan import Plan, read_plan

STUDY = "config/everything.yaml"
GROUPS = "results/demo/tables/groups.csv"
# Targets that nothing else needs: without them a dry run would leave out their jobs.
ON_DEMAND = ("report", "exports", "artifact", "numbers", GROUPS, "predictions")
WITHOUT_OUTPUT = ("all", "predictions")  # rules that only name other rules' files
Facts = tuple[str, list[str], list[str], str]  # rule, outputs, inputs, request's digest


def facts_of(job: PlannedJob) -> Facts:
    digest = provenance.digest(job.request)
    return job.rule, sorted(job.outputs), sorted(job.inputs), digest


def listed(text: str, key: str) -> list[str]:
    """The paths behind `input:` or `output:` in what a dry run prints of one job.

    What planning writes for Snakemake alone is left out.
    """
    line = re.search(rf"^    {key}: (.*)$", text, re.MULTILINE)
    paths = set(line[1].split(", ")) if line else set()
    return sorted(path for path in paths if documents.FOLDER not in path)


def jobs_of_snakemake(root: Path, *targets: str) -> list[Facts]:
    """Every job of a dry run."""
    done = run_snakemake(root, *targets, "-n", "-p", "--configfile", STUDY)
    assert done.returncode == 0, done.stderr[-3000:]
    found = []
    for block in re.split(r"^(?=(?:local)?rule )", done.stdout, flags=re.MULTILINE)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block)[1]
        if rule not in WITHOUT_OUTPUT:
            digest = re.search(r"--request @results/\.requests/(\w+)\.json", block)[1]
            found.append((rule, listed(block, "output"), listed(block, "input"), digest))
    return found


@pytest.fixture
def everything(clone: Path, demo: dict) -> Plan:
    """A study with every kind of job.

    It is the demo, with a search for all methods but one, variants, and an evaluation of a decoder.
    """
    (grid,) = demo["train"]
    grid["methods"].remove("head_only")
    override = grid.pop("override")
    of_head = {"head_only": override.pop("head_only")}
    short = {"short": {"schedule": {"epochs": 1}}}
    unsearched = {**grid, "methods": ["head_only"], "override": of_head, "variants": short}
    grid["override"] = override
    grid["search"] = {"learning_rate_factors": [1, 3], "seeds": [1]}
    grid["variants"] = {"a.b": {"override": {"lora": {"options": {"rslora": True}}}}}
    decoder = {"models": ["tiny_decoder"], "datasets": ["generated_prompts"], "seeds": [0]}
    decoder |= {"methods": ["lora"], "ranks": [2], "keep": "merged"}
    evaluate = [{"tasks": ["small_arithmetic"], "models": ["tiny_decoder"]}]
    train = [grid, unsearched, decoder]
    (clone / STUDY).write_text(yaml.safe_dump({**demo, "train": train, "evaluate": evaluate}))
    return read_plan(clone, STUDY)


def test_the_jobs_are_those_of_the_real_workflow(everything: Plan) -> None:
    """The same rules, outputs, inputs and requests."""
    planned = [facts_of(job) for job in jobs.planned_jobs(everything)]
    assert sorted(jobs_of_snakemake(everything.root, *ON_DEMAND)) == sorted(planned)


def test_the_picture_of_the_workflow_is_of_the_pages_jobs(everything: Plan) -> None:
    """Its rules, their numbers of jobs, and which rule reads what another writes."""
    page = jobs_of_snakemake(everything.root)
    assert jobs.rule_counts(everything) == Counter(rule for rule, *_ in page)
    writers = {path: rule for rule, written, _, _ in page for path in written}
    edges = {(writers[path], rule) for rule, _, read, _ in page for path in read}
    assert jobs.rule_edges(everything) == sorted(edges)


def test_a_job_comes_after_the_jobs_whose_files_it_reads(everything: Plan) -> None:
    written: set[str] = set()
    for job in jobs.planned_jobs(everything):
        assert written.issuperset(job.inputs), job
        assert written.isdisjoint(job.outputs), job
        written |= set(job.outputs)


def test_an_evaluation_reads_its_run_its_model_and_its_dataset(everything: Plan) -> None:
    """And the page reads the tables and the figure of evaluations."""
    (job,) = jobs.cell_jobs(everything, "evaluate")
    (run,) = [
        run for run in jobs.cell_jobs(everything, "train") if run.cell.model == "tiny_decoder"
    ]
    inputs = [job for job in jobs.input_jobs(everything) if job.rule != "prepare_model"]
    paths = {job.name: job.path for job in inputs}
    assert set(job.inputs) == {run.path, paths["tiny_decoder"], paths["generated_prompts"]}
    (page,) = [job for job in jobs.document_jobs(everything) if job.rule == "report"]
    names = ("evaluations", "evaluations_summary", "evaluations_comparisons")
    assert {f"results/demo/tables/{name}.csv" for name in names} <= set(page.inputs)
    assert "results/demo/figures/evaluations.svg" in page.inputs


def test_a_result_has_a_short_name_without_its_digest(everything: Plan) -> None:
    run = jobs.cell_jobs(everything, "train")[0]
    assert run.path == f"results/demo/runs/{run.name}/{run.digest}/train.json"
    assert run.short_path == f"results/demo/runs/{run.name}/train.json"
    assert jobs.targets(everything)[run.short_path] == run.path


def test_only_what_a_file_needs_is_required(everything: Plan) -> None:
    """A run of a search needs its inputs, trials and choice, and no profile."""
    run = jobs.cell_jobs(everything, "train")[0]
    required = jobs.required_jobs(jobs.planned_jobs(everything), run.path)
    assert [job.rule for job in required] == [
        "prepare_dataset", "prepare_dataset", "pretrain_model", "trial", "trial", "choose", "train",
    ]  # fmt: skip
    assert {job.cell.curve for job in required if job.cell} == {run.cell.curve}
    with pytest.raises(KeyError):
        jobs.required_jobs(jobs.planned_jobs(everything), "results/nothing.csv")
