"""What a machine lacks for a study, each with what to do about it, and notes on what stops nothing.

From the facts of machine.py, the needs of doctor.py, and the checks that Snakemake makes before its
first job (preflight.py). Standard library only.
"""

from rankwise.checks import evaluation_tasks, preflight
from rankwise.core import environment, settings
from rankwise.core.config import ConfigError
from rankwise.core.probe import ABSENT
from rankwise.core.units import GIB, MIB
from rankwise.execution.gpu_needs import CONTEXT_GIB
from rankwise.execution.gpus import Gpu
from rankwise.study.jobs import PlannedJob
from rankwise.study.plan import Plan

# CUDA's major version -> the oldest driver and the least compute capability that it works with.
# Source: NVIDIA's CUDA Toolkit release notes, "CUDA driver versions" and "deprecated
# architectures".
CUDA_NEEDS = {11: (450, 3.5), 12: (525, 5.0), 13: (580, 7.5)}
GPU_LOCK, CUDA_RUNTIME = "envs/gpu.lock", "nvidia-cuda-runtime"
# Kind of missing thing -> what to do.
REMEDIES = {
    "disk": (
        "make room there, or let `results` be a link to a folder on a larger disk, or name one in "
        "RANKWISE_STORE"
    ),
    "gpu": (
        "run it on a machine with an NVIDIA GPU (copy results/ along: only what is missing runs "
        "there), or on a cluster"
    ),
    "packages": "install the lock's packages, or run in the image (docker/build.sh) that has them",
    "hub": (
        "connect this machine, or copy results/inputs from one that is; "
        "with a filled cache, set HF_HUB_OFFLINE=1"
    ),
    "files": "put the files there, or correct the entry",
    "models": "correct the entry, or the model's folder",
    "rows": "correct the rows, or the entry",
}


def missing(plan: Plan, jobs: list[PlannedJob], facts: dict[str, dict], needs: dict) -> list[dict]:
    """Everything that the machine lacks.

    Args:
        plan: The study.
        jobs: The jobs that would run.
        facts: What `machine.look` found.
        needs: What `doctor.needed` found.

    Returns:
        For each lack: `what`, a sentence; what to `do`; and whether it is `here`, on this machine
        only, so that a cluster could run the study all the same.
    """
    problems = [*_clone(plan, jobs, facts["clone"]), *_packages(plan, needs)]
    for line in evaluation_tasks.harness(jobs, plan):
        problems.append(_problem(line, REMEDIES["packages"]))
    for kind in ("hub", "files", "models", "rows"):
        problems += _lacking(kind, jobs, plan)
    only_here = [*_scratch(facts), *_memory(plan, facts, needs), *_gpu(plan, jobs, facts, needs)]
    return problems + [{**problem, "here": True} for problem in only_here]


def _problem(what: str | ConfigError, do: str) -> dict:
    return {"what": str(what), "do": do, "here": False}


def _lacking(
    kind: str, jobs: list[PlannedJob], plan: Plan, known_gpus: list[Gpu] | None = None
) -> list[dict]:
    """The problems that the preflight check finds, with the remedy for their kind."""
    lines = preflight.lacking(kind, jobs, plan, known_gpus)
    return [_problem(line, REMEDIES[kind]) for line in lines]


def _clone(plan: Plan, jobs: list[PlannedJob], clone: dict) -> list[dict]:
    """Too little room in this clone, or a folder that cannot be written."""
    problems = []
    if "free_bytes" in clone:  # a disk that did not answer is not asked again
        problems += _lacking("disk", jobs, plan)
    if "trouble" in clone:
        # Without a path, nothing is known but that the disk does not answer.
        named = (
            clone["trouble"] if "path" in clone else f"{plan.root}: this disk {clone['trouble']}"
        )
        problems.append(_problem(named, "make room there, or make it writable"))
    return problems


def _packages(plan: Plan, needs: dict) -> list[dict]:
    refusals = [environment.refusal(plan.workflow / lock) for lock in needs["locks"]]
    return [_problem(refusal, REMEDIES["packages"]) for refusal in refusals if refusal]


def _scratch(facts: dict[str, dict]) -> list[dict]:
    scratch = facts["scratch"]
    if "trouble" not in scratch:
        return []
    return [_problem(f"TMPDIR: {scratch['trouble']}", "set TMPDIR to a folder with room")]


def _memory(plan: Plan, facts: dict[str, dict], needs: dict) -> list[dict]:
    """The job that needs the most memory does not fit into this machine's."""
    usable_mib = facts["memory"].get("usable_bytes", 0) // MIB
    if not usable_mib or needs["memory_mib"] <= usable_mib:
        return []
    key = f"MiB of {needs['memory_of']}"
    allowed = f"at most {usable_mib}, this machine's"
    error = ConfigError(plan.file, key, needs["memory_mib"], allowed)
    remedy = "run it on a machine with more memory, or on a cluster"
    if needs["trainings_not_predicted"]:
        remedy += "; `snakemake predictions` may find that it needs less"
    return [_problem(error, remedy)]


# GPUs ---------------------------------------------------------------------------------------------


def _gpu(plan: Plan, jobs: list[PlannedJob], facts: dict[str, dict], needs: dict) -> list[dict]:
    """No GPU, or none that can run the study with the installed torch."""
    if not needs["gpu_jobs"]:
        return []
    known = facts["cards"]
    if known.get("refused"):
        return [_problem(known["refused"], "correct that variable")]
    gpus = [Gpu(**gpu) for gpu in known.get("found", [])]
    if gpus:
        problems = [*_torch(facts, needs), *_driver_and_capability(plan, gpus, facts)]
        return [*problems, *_too_small(gpus, needs)]
    problems = _lacking("gpu", jobs, plan, gpus)
    trouble = known.get("trouble", ABSENT)
    if not trouble.endswith(ABSENT):  # nvidia-smi is installed, and something is wrong with it
        for problem in problems:
            mend = f"mend the driver first, if there is a GPU: {trouble}; else "
            problem["do"] = mend + problem["do"]
    return problems


def _torch(facts: dict[str, dict], needs: dict) -> list[dict]:
    """The installed torch was built without CUDA."""
    torch = facts["torch"]
    if "version" not in torch or torch["cuda"]:
        return []  # a torch that is not installed is reported with its lock
    allowed = f"a build with CUDA, for {needs['gpu_jobs']} jobs take a GPU"
    error = ConfigError(GPU_LOCK, "torch", torch["version"], allowed)
    return [_problem(error, f"install {GPU_LOCK}, or run in the image (docker/build.sh)")]


def _driver_and_capability(plan: Plan, gpus: list[Gpu], facts: dict[str, dict]) -> list[dict]:
    """The driver or a GPU is too old for the CUDA of the installed torch, or else of the lock."""
    locked = environment.locked_versions(plan.workflow / GPU_LOCK).get(CUDA_RUNTIME, "")
    cuda = facts["torch"].get("cuda") or locked
    cuda_major = int(cuda.partition(".")[0] or 0)
    oldest_driver, least_capability = CUDA_NEEDS.get(cuda_major, (0, 0))
    problems = []
    driver = facts["cards"].get("driver")
    if driver and int(driver.partition(".")[0]) < oldest_driver:
        allowed = f"at least {oldest_driver}, for CUDA {cuda}"
        error = ConfigError("nvidia-smi", "driver", driver, allowed)
        problems.append(_problem(error, "update it"))
    capabilities = facts["cards"]["capabilities"]
    # A GPU whose capability is not known counts as good enough.
    weak = [gpu for gpu in gpus if capabilities.get(gpu.uuid, least_capability) < least_capability]
    others = [gpu for gpu in gpus if gpu not in weak]
    allowed = f"at least {least_capability}, for CUDA {cuda}"
    for gpu in weak:
        error = ConfigError(str(gpu), "compute capability", capabilities[gpu.uuid], allowed)
        problems.append(_problem(error, _use_others(others, "a newer GPU")))
    return problems


def _too_small(gpus: list[Gpu], needs: dict) -> list[dict]:
    """GPUs on which the training run with the largest predicted peak would run out of memory."""
    if not needs["peak_bytes"]:
        return []
    needed_bytes = needs["peak_bytes"] + CONTEXT_GIB * GIB
    small = [gpu for gpu in gpus if 0 < gpu.memory_bytes < needed_bytes]  # 0: its size is not known
    large = [gpu for gpu in gpus if gpu not in small]
    allowed = (
        f"at least {needed_bytes / GIB:.1f} GiB, the predicted peak of {needs['peak_of']} "
        "and what CUDA takes"
    )
    remedy = _use_others(
        large, "a larger GPU, or a smaller batch_size with more accumulation_steps"
    )
    problems = []
    for gpu in small:
        size = f"{gpu.memory_bytes / GIB:.1f} GiB"
        problems.append(_problem(ConfigError(gpu.uuid, gpu.name, size, allowed), remedy))
    return problems


def _use_others(others: list[Gpu], otherwise: str) -> str:
    """Keep to the GPUs that are good enough; if there are none, use something else."""
    if not others:
        return f"use {otherwise}"
    uuids = ",".join(gpu.uuid for gpu in others)
    return f"keep to the others: CUDA_VISIBLE_DEVICES={uuids}"


# Notes --------------------------------------------------------------------------------------------


def notes(facts: dict[str, dict], needs: dict) -> list[str]:
    """Notes that stop nothing, a line each."""
    found = list(facts["cards"].get("notes", [])) if needs["gpu_jobs"] else []
    cores, threads = facts["processors"].get("usable", 0), needs["cpu_threads"]
    if cores and threads > cores:
        found.append(
            f"a job has {threads} threads, and this machine {cores} CPUs for it: it takes longer"
        )
    usable_mib = facts["memory"].get("usable_bytes", 0) // MIB
    jobs_at_once = min(cores // threads, sum(needs["jobs"].values()))
    needed_mib = jobs_at_once * needs["memory_mib"]
    if needs["memory_mib"] <= usable_mib < needed_mib:
        found.append(
            f"{jobs_at_once} jobs at once may need {needed_mib / 1024:.0f} GiB of memory; "
            f"`--resources mem_mb={usable_mib}` starts no more than fit"
        )
    if settings.read(environment.OWN) == environment.RECORDED:
        found.append(
            f"{environment.OWN}={environment.RECORDED}: packages are not held to the locks; "
            "results record what differs"
        )
    return found
