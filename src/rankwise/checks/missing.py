"""What a machine lacks for a study, each with the thing to do; and what is worth knowing before it starts.

From the facts of machine.py and the needs of doctor.py, and from the checks that Snakemake makes before its first job
(preflight.py). Standard library only.
"""

from rankwise.checks import preflight
from rankwise.core import environment, settings
from rankwise.core.config import ConfigError
from rankwise.core.probe import ABSENT
from rankwise.execution.gpu_needs import CONTEXT_GIB
from rankwise.execution.gpus import GIB, Card
from rankwise.study.plan import Plan

MIB = 2**20
# CUDA's major version -> the oldest driver and the least compute capability that it works with, by NVIDIA's release notes.
CUDA_NEEDS = {11: (450, 3.5), 12: (525, 5.0), 13: (580, 7.5)}
GPU_LOCK, RUNTIME = "envs/gpu.lock", "nvidia-cuda-runtime"
DO = {
    "disk": "free as much on the disk of this clone, or lay the clone on a larger one",
    "gpu": "run it on a machine with an NVIDIA GPU (copy results/ along: only what is missing runs there), or on a cluster",
    "packages": "install the lock's packages, or run in the image (docker/build.sh), which has them",
    "hub": "connect this machine, or copy results/inputs from one that is; with a filled cache, set HF_HUB_OFFLINE=1",
    "files": "put the files there, or correct the entry",
}  # fmt: skip


def missing(
    plan: Plan, jobs: list[preflight.Job], facts: dict[str, dict], needs: dict
) -> list[dict]:
    """`what`, a sentence; what to `do`; whether only `here`, so that a cluster could run the study all the same."""
    there = [Card(**card) for card in facts["cards"].get("found", [])]
    packages = [
        _one(why, DO["packages"])
        for lock in needs["locks"]
        if (why := environment.refusal(plan.workflow / lock))
    ]
    origins = [*_lacking("hub", jobs, plan), *_lacking("files", jobs, plan)]
    here = [*_scratch(facts), *_memory(plan, facts, needs), *_gpu(plan, jobs, there, facts, needs)]
    return [
        *_clone(plan, jobs, facts["clone"]),
        *packages,
        *origins,
        *({**one, "here": True} for one in here),
    ]


def _one(what: str | ConfigError, do: str) -> dict:
    return {"what": str(what), "do": do, "here": False}


def _lacking(
    kind: str, jobs: list[preflight.Job], plan: Plan, there: list[Card] | None = None
) -> list[dict]:
    return [_one(line, DO[kind]) for line in preflight.lacking(kind, jobs, plan, there)]


def _clone(plan: Plan, jobs: list[preflight.Job], clone: dict) -> list[dict]:
    """A disk that does not answer is not asked again."""
    room = _lacking("disk", jobs, plan) if "free_bytes" in clone else []
    said = clone.get("trouble") if "path" in clone else f"{plan.root}: this disk {clone['trouble']}"
    return [*room, *([_one(said, "make room there, or make it writable")] if said else [])]


def _scratch(facts: dict[str, dict]) -> list[dict]:
    scratch = facts["scratch"]
    return (
        [_one(f"TMPDIR: {scratch['trouble']}", "set TMPDIR to a folder with room")]
        if "trouble" in scratch
        else []
    )


def _memory(plan: Plan, facts: dict[str, dict], needs: dict) -> list[dict]:
    usable = facts["memory"].get("usable_bytes", 0) // MIB
    if not usable or needs["memory_mib"] <= usable:
        return []
    guessed = (
        "; `snakemake predictions` may find that it needs less"
        if needs["trainings_not_predicted"]
        else ""
    )
    error = ConfigError(
        plan.file,
        f"MiB of {needs['memory_of']}",
        needs["memory_mib"],
        f"at most {usable}, this machine's",
    )
    return [_one(error, f"run it on a machine with more memory, or on a cluster{guessed}")]


# Cards ----------------------------------------------------------------------------------------------------------------


def _gpu(
    plan: Plan, jobs: list[preflight.Job], there: list[Card], facts: dict[str, dict], needs: dict
) -> list[dict]:
    cards = facts["cards"]
    if not needs["gpu_jobs"]:
        return []
    if why := cards.get("refused"):
        return [_one(why, "correct that variable")]
    if not there:
        ill = "trouble" in cards and not cards["trouble"].endswith(ABSENT)
        mend = (
            f"mend the driver first, if there is a card: {cards['trouble']}; else " if ill else ""
        )
        return [{**one, "do": mend + one["do"]} for one in _lacking("gpu", jobs, plan, there)]
    return [*_torch(facts, needs), *_driver(plan, there, facts), *_too_small(there, needs)]


def _torch(facts: dict[str, dict], needs: dict) -> list[dict]:
    torch = facts["torch"]
    if "version" not in torch or torch["cuda"]:
        return []  # that it is not installed is told of its lock
    error = ConfigError(
        GPU_LOCK,
        "torch",
        torch["version"],
        f"a build with CUDA, for {needs['gpu_jobs']} jobs take a GPU",
    )
    return [_one(error, f"install {GPU_LOCK}, or run in the image (docker/build.sh)")]


def _driver(plan: Plan, there: list[Card], facts: dict[str, dict]) -> list[dict]:
    """Cards, or a driver, too old for the CUDA of the installed torch, or of the lock where it has none."""
    cuda = facts["torch"].get("cuda") or environment.locked_versions(plan.workflow / GPU_LOCK).get(
        RUNTIME, ""
    )
    oldest, least = CUDA_NEEDS.get(int(cuda.partition(".")[0] or 0), (0, 0))
    driver, capabilities = facts["cards"].get("driver"), facts["cards"]["capabilities"]
    found = []
    if driver and int(driver.partition(".")[0]) < oldest:
        found.append(
            _one(
                ConfigError("nvidia-smi", "driver", driver, f"at least {oldest}, for CUDA {cuda}"),
                "update it",
            )
        )
    weak = [card for card in there if capabilities.get(card.uuid, least) < least]
    for card in weak:
        allowed = f"at least {least}, for CUDA {cuda}"
        error = ConfigError(str(card), "compute capability", capabilities[card.uuid], allowed)
        found.append(_one(error, _other([one for one in there if one not in weak], "a newer card")))
    return found


def _too_small(there: list[Card], needs: dict) -> list[dict]:
    """Cards on which the training with the largest predicted peak would end for lack of memory."""
    wanted = (needs["peak_bytes"] or 0) + CONTEXT_GIB * GIB * bool(needs["peak_bytes"])
    small = [card for card in there if 0 < card.memory_bytes < wanted]
    large = [card for card in there if card not in small]
    allowed = f"at least {wanted / GIB:.1f} GiB, the predicted peak of {needs['peak_of']} and what CUDA takes"
    do = _other(large, "a larger card, or a smaller batch_size with more accumulation_steps")
    return [
        _one(ConfigError(card.uuid, card.name, f"{card.memory_bytes / GIB:.1f} GiB", allowed), do)
        for card in small
    ]


def _other(good: list[Card], else_: str) -> str:
    return (
        f"keep to the others: CUDA_VISIBLE_DEVICES={','.join(card.uuid for card in good)}"
        if good
        else f"use {else_}"
    )


# Worth knowing --------------------------------------------------------------------------------------------------------


def notes(facts: dict[str, dict], needs: dict) -> list[str]:
    """What stops nothing, a line each."""
    found = list(facts["cards"].get("notes", [])) if needs["gpu_jobs"] else []
    usable, threads = facts["processors"].get("usable", 0), needs["cpu_threads"]
    if usable and threads > usable:
        found.append(
            f"a job has {threads} threads, and this machine {usable} CPUs for it: it takes longer"
        )
    memory, jobs = (
        facts["memory"].get("usable_bytes", 0) // MIB,
        min(usable // threads, sum(needs["jobs"].values())),
    )
    if needs["memory_mib"] <= memory < jobs * needs["memory_mib"]:
        all_ = f"{jobs} jobs at once may need {jobs * needs['memory_mib'] / 1024:.0f} GiB of memory"
        found.append(f"{all_}; `--resources mem_mb={memory}` starts no more than fit")
    if settings.read(environment.OWN) == environment.RECORDED:
        found.append(
            f"{environment.OWN}={environment.RECORDED}: packages are not held to the locks; results record what differs"
        )
    return found
