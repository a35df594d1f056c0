"""From the configuration to cells, paths and requests. No rules; whatever is wrong ends here, in one sentence."""

import sys
from pathlib import Path

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT / "src"))

from rankwise.checks import preflight
from rankwise.execution import container, job_memory, slurm_nodes, slurm_request
from rankwise.study import outputs, text_outputs
from rankwise.execution.gpus import CardError
from rankwise.core.config import ConfigError
from rankwise.execution.gpu_needs import card_need
from rankwise.study.plan import MEASUREMENTS, Cell, Plan, dumps, study_file

DEPLOYED = {method.name for method in workflow.deployment_settings.deployment_method}  # --sdm
# Jobs run on this machine, and are started from here: not on a cluster, nor on a node of one.
LOCAL = workflow.is_main_process and workflow.resource_settings.nodes is None


def card_limits():
    """Snakemake's limit on the resource gpu, and what --set-resources gives each rule of it."""
    limit = workflow.resource_settings._parsed_resources.get("gpu")
    own = workflow.resource_settings._parsed_overwrite_resources
    asked = {rule: found["gpu"].raw for rule, found in own.items() if "gpu" in found}
    return (limit.value if limit else None), asked


try:
    CLUSTER = slurm_request.settings(config.pop("cluster", None), ROOT)
    if CLUSTER and not any(word.startswith("--res") for word in sys.argv):
        workflow.global_resources._data.pop("gpu", None)  # profiles/default, which --profile reads too, limits this machine
    STUDY_FILE = study_file(workflow.overwrite_configfiles, ROOT)
    PLAN = Plan(config, ROOT, STUDY_FILE)
    preflight.check_targets(sys.argv[1:], PLAN)
    if LOCAL:
        preflight.check_cards(*card_limits())
    IMAGE = container.reference(ROOT)
    if workflow.is_main_process and "APPTAINER" in DEPLOYED:
        container.check(IMAGE, ROOT)
except (ConfigError, CardError) as error:
    sys.exit(str(error))

preflight.set_environment(ROOT, PLAN, warm=workflow.is_main_process and not CLUSTER)
PRETRAINED = [name for name, entry in PLAN.library["models"].items() if "pretrain" in entry.get("weights", {})]


wildcard_constraints:
    model="|".join(PLAN.library["models"]),
    dataset="|".join(PLAN.library["datasets"]),
    method="|".join(PLAN.library["methods"]),
    pretrained="|".join(PRETRAINED) or "none",
    rank=r"\d+",
    seed=r"\d+",
    trial=r"lr[^/]+",
    measurement="|".join(MEASUREMENTS),


def cell_of(wildcards):
    seed = {"seed": int(wildcards.seed)} if hasattr(wildcards, "seed") else {}
    seed |= {"trial": wildcards.trial} if hasattr(wildcards, "trial") else {}
    return Cell(
        wildcards.model,
        wildcards.dataset,
        wildcards.method,
        int(wildcards.rank),
        **seed,
    )


def request_of(measurement):
    """A function from wildcards to the request of one cell, as the string that decides whether its job reruns."""
    return lambda wildcards: dumps(PLAN.request(measurement, cell_of(wildcards)))


def cards_of(measurement):
    """A function from wildcards to the number of whole cards that a job takes."""
    return lambda wildcards: _card_need(measurement, cell_of(wildcards))[0]


def card_memory_of(measurement):
    """A function from wildcards to the GiB that a job takes of a card that it shares; a text, for Snakemake rounds numbers."""
    return lambda wildcards: f"{_card_need(measurement, cell_of(wildcards))[1]:g}"


def _card_need(measurement, cell):
    on_gpu = PLAN.needs_gpu(measurement, cell)
    predicted = job_memory.prediction(PLAN, cell) if on_gpu and PLAN.study["share"] else {}
    return card_need(PLAN.study, measurement, on_gpu, predicted, LOCAL)


def training_memory(wildcards):
    """Host memory (MiB) of a training."""
    return job_memory.training_mib(PLAN, cell_of(wildcards))


def training_minutes(wildcards):
    """Minutes that a training may take."""
    return job_memory.training_min(PLAN, cell_of(wildcards))


def memory_of(measurement):
    """A function from wildcards to the host memory (MiB) of a profile."""
    return lambda wildcards: job_memory.profile_mib(PLAN, measurement, cell_of(wildcards))


def group_of(measurement):
    """A function from wildcards to the submission of a profile on a cluster: with the cell's others on the same kind of node."""

    def group(wildcards):
        node = "gpu" if PLAN.needs_gpu(measurement, cell_of(wildcards)) else "cpu"
        name = "_".join([node, wildcards.model, wildcards.dataset, wildcards.method, f"r{wildcards.rank}"])
        workflow.parent_groupids[name] = "profile"  # a profile's `group-components` joins what feeds nothing in its group
        return name

    return group


def input_request(kind, wildcard):
    return lambda wildcards: dumps(PLAN.input_request(kind, wildcards[wildcard]))


def results_of(table):
    """Paths of the results that a tidy table gathers."""
    measurement = outputs.TABLE_SOURCES[table]
    return [PLAN.path(measurement, cell) for cell in PLAN.cells(measurement)]


def check_machine():
    """Before the first job: refuse what cannot end well on this machine, or on any node of a cluster."""
    jobs = [(job.rule.name, dict(job.wildcards_dict)) for job in workflow.dag.needrun_jobs()]
    problems = preflight.problems(jobs, PLAN, workflow.local_exec, own=bool(DEPLOYED), limit=card_limits()[0])
    if workflow.executor_plugin.name == "slurm":
        problems += check_cluster()
    if problems:
        raise WorkflowError("\n".join(problems))
    for note in preflight.card_notes(jobs, PLAN) if LOCAL else ():
        print(note, file=sys.stderr)


def check_cluster():
    """What a SLURM cluster could not run; its nodes' own disks are not looked at from here."""
    submitted = {workflow.dag.get_job_group(job) or job for job in workflow.dag.needrun_jobs() if not job.is_local}
    asks = [slurm_request.ask(name_of(one), dict(one.resources.items())) for one in submitted]
    settings, cores = workflow.executor_settings, workflow.resource_settings.cores
    scratch = {str(one.resources.get("tmpdir").raw).strip("'") for one in workflow.rules}  # as given: nodes evaluate it
    results = ROOT / "results"
    folders = [results if results.exists() else ROOT, *(Path(folder) for folder in sorted(scratch) if folder.startswith("/"))]
    return [
        *slurm_request.options(CLUSTER, PLAN.file, PLAN.study["cpu_threads"], cores, card_limits()[0]),
        *slurm_request.unlike(asks, settings.array_jobs),
        *slurm_nodes.refusals(asks, PLAN.file, settings.status_command, folders),
    ]


def name_of(submission):
    """A rule, or what all groups of a kind are called."""
    return (
        workflow.parent_groupids.get(submission.groupid, submission.groupid) if submission.is_group() else submission.rule.name
    )
