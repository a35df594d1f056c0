"""From the configuration to cells, paths and requests.

This file has no rules. It reads the study, refuses whatever is wrong with it in one sentence, and
defines the functions that the rules in the other files use.

Reads: the study (`config`), the library of entries in config/, the locks in envs/.
Defines: PLAN (all cells and requests), functions from wildcards to parameters and resources.
"""

import re
import sys
from pathlib import Path

# The workflow's own sources, also where it is a module of another repository's Snakefile.
RULES = Path(workflow.current_basedir.get_path_or_uri(secret_free=True))
sys.path.insert(0, str(RULES.parent / "src"))

from rankwise.audit import failures, partial_report
from rankwise.checks import configfiles, disk, preflight
from rankwise.cli import failures_text
from rankwise.core import documents, provenance, requests
from rankwise.core.config import ConfigError
from rankwise.core.files import CannotWrite
from rankwise.core.store import StoreError
from rankwise.execution import container as container_image
from rankwise.execution import job_memory, locks, slurm_nodes, slurm_request, snakemake_adapter
from rankwise.execution.gpu_needs import gpu_need
from rankwise.execution.gpus import GpuError
from rankwise.study import jobs, outputs
from rankwise.study.grids import split_name
from rankwise.study.plan import MEASUREMENTS, Cell, Plan, study_file
from rankwise.study.settle import settle
from rankwise.study.tidy import tidy

PROJECT = Path.cwd()  # studies, results and logs lie here
DEPLOYED = snakemake_adapter.deployment_methods(workflow)
LOCAL = snakemake_adapter.runs_locally(workflow)

try:
    snakemake_adapter.check_version()
    configfiles.check_content(snakemake_adapter.command_line())
    CLUSTER = slurm_request.settings(config.pop("cluster", None), PROJECT)
    if CLUSTER and not snakemake_adapter.sets_resources():
        snakemake_adapter.drop_gpu_limit(workflow)
    STUDY_FILE = study_file(snakemake_adapter.config_file(workflow), PROJECT)
    PLAN = Plan(config, PROJECT, STUDY_FILE)
    meant = preflight.check_targets(snakemake_adapter.command_line(), PLAN)
    snakemake_adapter.replace_targets(workflow, meant)
    if LOCAL:
        preflight.check_gpus(*snakemake_adapter.gpu_limits(workflow))
    IMAGE = container_image.reference(PROJECT)
    if workflow.is_main_process:
        if "APPTAINER" in DEPLOYED:
            container_image.check(IMAGE, PROJECT)
        failures.say_kills(PROJECT)
        tidy(PLAN, settle(PLAN))
        snakemake_adapter.on_lock(workflow, locks.Run(PROJECT, STUDY_FILE))
except (
    CannotWrite,
    ConfigError,
    GpuError,
    StoreError,
    snakemake_adapter.UntestedSnakemake,
) as error:
    sys.exit(str(error))

if workflow.is_main_process:
    snakemake_adapter.announce_briefly(workflow, failures.titles(PLAN))

preflight.set_environment(PLAN, warm=workflow.is_main_process and not CLUSTER)
PRETRAINED = [
    name for name, entry in PLAN.library["models"].items() if "pretrain" in entry.get("weights", {})
]


pathvars:
    results=PLAN.results,
    logs=PLAN.logs,


wildcard_constraints:
    model="|".join(map(re.escape, PLAN.library["models"])),
    dataset="|".join(map(re.escape, PLAN.library["datasets"])),
    method="|".join(re.escape(name) for name, _ in outputs.labels(PLAN)),
    pretrained="|".join(map(re.escape, PRETRAINED)) or "none",
    rank=r"\d+",
    digest=f"[0-9a-f]{{{provenance.DIGEST_LENGTH}}}",
    seed=r"\d+",
    trial=r"lr[^/]+",
    evaluation="|".join(map(re.escape, PLAN.library["evaluations"])) or "none",
    measurement="|".join(MEASUREMENTS),


def cell_of(wildcards):
    """The cell that a job's wildcards name."""
    coordinates = {}
    if hasattr(wildcards, "seed"):
        coordinates["seed"] = int(wildcards.seed)
    if hasattr(wildcards, "trial"):
        coordinates["trial"] = wildcards.trial
    if hasattr(wildcards, "evaluation"):
        coordinates["evaluation"] = wildcards.evaluation
    method, variant = split_name(wildcards.method)
    return Cell(
        wildcards.model,
        wildcards.dataset,
        method,
        int(wildcards.rank),
        variant=variant,
        **coordinates,
    )


# Parameters: a job's request is its only scientific one ------------------------------------------


def request_of(measurement):
    """A function from wildcards to the digest of one cell's request, which lies in a file."""
    return lambda wildcards: planned_request(
        PLAN.request(measurement, cell_of(wildcards)), wildcards
    )


def planned_request(request, wildcards):
    """Write a request to its file; its digest, which is a part of the output's path.

    A job on a node reads the study again, which may have been edited since it was submitted.
    """
    digest = requests.write(request)
    if digest != wildcards.digest:
        raise WorkflowError(
            f"{PLAN.file}: got request {digest}, allowed: {wildcards.digest}, as when this job was "
            "planned; the study, an entry or a source was edited since. Run snakemake again"
        )
    return digest


def title_of(measurement):
    """A function from wildcards to what people read of a job: method, rank, seed, learning rate."""
    return lambda wildcards: requests.title(PLAN.request(measurement, cell_of(wildcards)))


def input_request(kind, wildcard):
    """A function from wildcards to the digest of the request that prepares a model or dataset."""
    return lambda wildcards: planned_request(
        PLAN.input_request(kind, wildcards[wildcard]), wildcards
    )


def input_title(kind, wildcard):
    """A function from wildcards to what people read of a job that prepares an input."""
    return lambda wildcards: requests.title(PLAN.input_request(kind, wildcards[wildcard]))


# Resources ----------------------------------------------------------------------------------------


def gpus_of(measurement):
    """A function from wildcards to the number of whole GPUs that a job takes."""
    return lambda wildcards: _gpu_need(measurement, cell_of(wildcards))[0]


def gpu_memory_of(measurement):
    """A function from wildcards to the GiB that a job takes of a GPU that it shares.

    A text, since Snakemake rounds numbers.
    """
    return lambda wildcards: f"{_gpu_need(measurement, cell_of(wildcards))[1]:g}"


def _gpu_need(measurement, cell):
    on_gpu = PLAN.needs_gpu(measurement, cell)
    shares = on_gpu and PLAN.study["share"]
    predicted = job_memory.prediction(PLAN, cell) if shares else {}
    processes = PLAN.processes(measurement, cell) if on_gpu else 1
    return gpu_need(PLAN.study, measurement, on_gpu, predicted, LOCAL, processes)


def threads_of(measurement):
    """A function from wildcards to the threads of a training run: of all its processes."""
    return lambda wildcards: (
        PLAN.study["cpu_threads"] * PLAN.processes(measurement, cell_of(wildcards))
    )


def training_memory(wildcards):
    """Host memory of a training run, in MiB."""
    return job_memory.training_mib(PLAN, cell_of(wildcards))


def evaluation_memory(wildcards):
    """Host memory of an evaluation, in MiB."""
    return job_memory.evaluation_mib(PLAN, cell_of(wildcards))


def training_minutes(wildcards):
    """The time limit of a training run, in minutes."""
    return job_memory.training_min(PLAN, cell_of(wildcards))


def memory_of(measurement):
    """A function from wildcards to the host memory of a profile, in MiB."""
    return lambda wildcards: job_memory.profile_mib(PLAN, measurement, cell_of(wildcards))


def group_of(measurement):
    """A function from wildcards to the group of a profile, which a cluster runs as one submission.

    A cell's profiles on the same kind of node form one group.
    """

    def group(wildcards):
        node = "gpu" if PLAN.needs_gpu(measurement, cell_of(wildcards)) else "cpu"
        cell = [wildcards.model, wildcards.dataset, wildcards.method, f"r{wildcards.rank}"]
        name = "_".join([node, *cell])
        # `group-components: profile` in a cluster's profile joins groups of this name.
        snakemake_adapter.name_group(workflow, name, "profile")
        return name

    return group


# Files --------------------------------------------------------------------------------------------


def input_of(kind):
    """A function from wildcards to the prepared dataset or model of a training run."""
    return lambda wildcards: PLAN.input_path(kind, wildcards[kind])


def data_of(measurement):
    """A function from wildcards to what a profile reads of a dataset and a model, if it does."""
    return lambda wildcards: PLAN.profile_inputs(measurement, cell_of(wildcards))


def document(name, wildcards):
    """The job of a document, whose first file is `name` with its wildcards filled in."""
    return jobs.document(PLAN, name.format(**wildcards))


def reads(name):
    """A function from wildcards to the files that a document is made from."""
    return lambda wildcards: list(document(name, wildcards).inputs)


def planned(name):
    """A function from wildcards to the file that says whether a document is as planned.

    An object store has no such files: there Snakemake's records decide.
    """
    if snakemake_adapter.uses_storage(workflow):
        return []
    return lambda wildcards: documents.planned_file(PLAN.results, name.format(**wildcards))


def document_request(name):
    """A function from wildcards to the digest of a document's request, which lies in a file."""
    return lambda wildcards: requests.write(document(name, wildcards).request)


# Before the first job -----------------------------------------------------------------------------


def check_machine():
    """Refuse jobs that cannot end well on this machine, or on any node of a cluster."""
    pending = snakemake_adapter.pending_files(workflow)
    jobs = preflight.jobs_that_write(PLAN, pending)
    limit, _ = snakemake_adapter.gpu_limits(workflow)
    problems = preflight.problems(jobs, PLAN, workflow.local_exec, own=bool(DEPLOYED), limit=limit)
    if not snakemake_adapter.uses_storage(workflow):
        problems += disk.read_only(map(Path, pending))
    if workflow.executor_plugin.name == "slurm":
        problems += check_cluster(limit)
    if problems:
        raise WorkflowError("\n".join(problems))
    notes = preflight.gpu_notes(jobs, PLAN) if LOCAL else []
    for note in [*PLAN.evaluations.notes, *notes]:
        print(note, file=sys.stderr)


def report_what_is_there():
    """After a failed run that was to write the page: write it from the results that are there."""
    if PLAN.output(outputs.REPORT) not in snakemake_adapter.pending_files(workflow):
        return
    try:
        print("a job failed: the report is made from what is there", file=sys.stderr, flush=True)
        made = partial_report.build(*partial_report.find(PLAN))
        print(failures_text.text(made), file=sys.stderr, flush=True)
    except ValueError as error:
        print(error, file=sys.stderr)


def check_cluster(gpu_limit):
    """What a SLURM cluster could not run. The nodes' own disks cannot be looked at from here."""
    asks = [
        slurm_request.ask(
            snakemake_adapter.submission_name(workflow, one), dict(one.resources.items())
        )
        for one in snakemake_adapter.submissions(workflow)
    ]
    settings, cores = workflow.executor_settings, workflow.resource_settings.cores
    folders = disk.written_folders(PROJECT)
    for scratch in sorted(snakemake_adapter.temporary_folders(workflow.rules)):
        if scratch.startswith("/"):
            folders.append(Path(scratch))
    return [
        *slurm_request.options(CLUSTER, PLAN.file, PLAN.study["cpu_threads"], cores, gpu_limit),
        *slurm_request.unlike(asks, settings.array_jobs),
        *slurm_nodes.refusals(asks, PLAN.file, settings.status_command, folders),
    ]
