"""Requests to a SLURM cluster, in the executor's words.

The user names partitions, account and GPU type once, in profiles/cluster.yaml.

Standard library and rankwise.core only: the Snakefile imports this module on the login node.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rankwise.core import paths
from rankwise.core.config import ConfigError, read_yaml
from rankwise.core.schemas import check

FILE = "profiles/cluster.yaml"
STYLES = ("gpus", "gres", "kubernetes")
RESOURCES = (
    "slurm_account",
    "slurm_partition",
    "slurm_extra",
    "gpu",
    "gpu_model",
    "gres",
    "gpu_manufacturer",
)


class Ask(NamedTuple):
    """The request of one submission; None where it asks for nothing in particular."""

    name: str  # of the rule or group
    partition: str | None
    cpus: int
    memory_mib: int | None
    minutes: int | None
    gpus: int
    model: str | None

    @property
    def size(self) -> tuple[int, ...]:
        """The order of two submissions by what they ask for."""
        return self.gpus, self.memory_mib or 0, self.minutes or 0, self.cpus


def settings(style: str | None, project: Path) -> dict | None:
    """Read profiles/cluster.yaml.

    Args:
        style: The way in which a profile asks for GPUs, one of STYLES; None where no cluster's
            profile is used.
        project: The folder that the user works in.

    Returns:
        The checked settings and the style, or None without a style.

    Raises:
        ConfigError: The style is unknown, or the file has a mistake.
    """
    if style is None:
        return None
    if style not in STYLES:
        raise ConfigError("command line", "--config cluster", style, STYLES)
    given = read_yaml(paths.find(project, FILE), FILE)
    return {**check(given, paths.SCHEMAS / "cluster.schema.yaml", FILE), "style": style}


def resources(given: dict, gpus: int) -> dict[str, str | int | None]:
    """The values of RESOURCES for a job with `gpus` GPUs; a resource that is left out is not set.

    SLURM's executor passes on both `gpu` and `gres`, so one of them is always zero or None. The
    executor of Kubernetes fails at `gpu: 0` without a manufacturer.
    """
    if given["style"] == "kubernetes":
        return {"gpu": gpus, "gpu_manufacturer": "nvidia"}
    shared = {
        "slurm_account": given["account"],
        "slurm_partition": (given["gpu_partition"] if gpus else None) or given["partition"],
        "slurm_extra": given["sbatch_options"],
    }
    if given["style"] == "gpus":
        return {**shared, "gpu": gpus, "gpu_model": given["gpu_model"] if gpus else None}
    kind = f"gpu:{given['gpu_model']}" if given["gpu_model"] else "gpu"
    return {**shared, "gpu": 0, "gres": f"{kind}:{gpus}" if gpus else None}


def ask(name: str, values: dict) -> Ask:
    """The request of a submission.

    Args:
        name: Of the rule or group.
        values: The resources as Snakemake evaluated them. One that it cannot know yet is no
            number, and becomes None.
    """
    numbers = {key: value for key, value in values.items() if isinstance(value, int)}
    # gres is `gpu:COUNT` or `gpu:MODEL:COUNT`
    gres = str(values.get("gres") or f"gpu:{numbers.get('gpu', 0)}")
    _, *model, count = gres.split(":")
    return Ask(
        name=name,
        partition=values.get("slurm_partition"),
        cpus=numbers.get("_cores", 1),
        memory_mib=numbers.get("mem_mb"),
        minutes=numbers.get("runtime"),
        gpus=int(count),
        model=values.get("gpu_model") or (model[0] if model else None),
    )


def options(
    given: dict | None, study: str, cpu_threads: int, cores: int | None, gpus: int | None
) -> list[str]:
    """Options that do not fit a cluster: Snakemake would reduce requests to them without a word.

    Args:
        given: The settings of the cluster; None if the profile is none of ours.
        study: The name of the study's file.
        cpu_threads: The CPU threads of the study's jobs.
        cores: The value of --cores.
        gpus: The value of --resources gpu.

    Returns:
        One sentence an option.
    """
    errors = []
    if given is None:
        errors.append(ConfigError("command line", "--config cluster", None, STYLES))
    if cores is not None and cores < cpu_threads:
        allowed = f"at most {cores}, as --cores says (those of this machine with --profile)"
        errors.append(ConfigError(study, "cpu_threads", cpu_threads, allowed))
    if gpus == 1:
        allowed = "no limit: SLURM counts GPUs"
        errors.append(ConfigError("command line", "--resources gpu", gpus, allowed))
    return [str(error) for error in errors]


def unlike(asks: Iterable[Ask], arrays: str | None) -> list[str]:
    """Rules that are to be submitted as arrays although their jobs differ.

    An array asks for all of its jobs what its first job needs.

    Args:
        asks: What the submissions ask for.
        arrays: The value of --slurm-array-jobs: names of rules, or `all`.

    Returns:
        One sentence a rule.
    """
    names = {name.strip() for name in (arrays or "").replace(";", ",").split(",")}
    asks_by_name: dict[str, set[Ask]] = {}
    for one in asks:
        if one.name in names or "all" in names:
            asks_by_name.setdefault(one.name, set()).add(one)
    sentences = []
    for different in asks_by_name.values():
        if len(different) > 1:
            sentences.append(_differ(sorted(different, key=lambda one: one.size)))
    return sentences


def _differ(asks: list[Ask]) -> str:
    """The sentence for a rule whose jobs ask for different things; the smallest comes first."""
    least, most = asks[0], asks[-1]
    key = next(key for key in Ask._fields if getattr(least, key) != getattr(most, key))
    allowed = (
        "rules whose jobs ask for the same, and these ask for "
        f"{key} from {getattr(least, key)} to {getattr(most, key)}; --set-resources levels them"
    )
    return str(ConfigError("command line", "--slurm-array-jobs", least.name, allowed))
