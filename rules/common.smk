"""From the configuration to cells, paths and requests. No rules; whatever is wrong ends here, in one sentence."""

import sys
from pathlib import Path

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT / "src"))

from rankwise import image, outputs, preflight, texts
from rankwise.config import ConfigError
from rankwise.plan import MEASUREMENTS, Cell, Plan, dumps

DEPLOYED = {method.name for method in workflow.deployment_settings.deployment_method}  # --sdm
try:
    STUDY_FILE = preflight.study_file(workflow.overwrite_configfiles, ROOT)
    PLAN = Plan(config, ROOT, STUDY_FILE)
    preflight.check_targets(sys.argv[1:], PLAN)
    IMAGE = image.reference(ROOT)
    if workflow.is_main_process and "APPTAINER" in DEPLOYED:
        image.check(IMAGE, ROOT)
except ConfigError as error:
    sys.exit(str(error))

preflight.set_environment(ROOT, PLAN, warm=workflow.is_main_process)
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


def gpus_of(measurement):
    """A function from wildcards to the number of GPUs that a profile takes."""
    return lambda wildcards: int(PLAN.needs_gpu(measurement, cell_of(wildcards)))


def input_request(kind, wildcard):
    return lambda wildcards: dumps(PLAN.input_request(kind, wildcards[wildcard]))


def results_of(table):
    """Paths of the results that a tidy table gathers."""
    measurement = outputs.TABLE_SOURCES[table]
    return [PLAN.path(measurement, cell) for cell in PLAN.cells(measurement)]


def check_machine():
    """Before the first job: refuse what cannot end well on this machine. A cluster's nodes are not looked at from here."""
    jobs = [(job.rule.name, dict(job.wildcards_dict)) for job in workflow.dag.needrun_jobs()]
    problems = preflight.problems(jobs, PLAN, local=workflow.local_exec, own=bool(DEPLOYED))
    if problems:
        raise WorkflowError("\n".join(problems))
