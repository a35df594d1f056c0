"""What a SLURM cluster is asked for: names from profiles/cluster.yaml in the executor's words, and what each submission needs.

Standard library and rankwise.core.config only: the Snakefile imports this on the login node.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rankwise.core import paths
from rankwise.core.config import ConfigError, check, read_yaml

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
    """What one submission asks for; None where it says nothing."""

    name: str  # of the rule or group
    partition: str | None
    cpus: int
    memory_mib: int | None
    minutes: int | None
    gpus: int
    model: str | None

    @property
    def size(self) -> tuple[int, ...]:
        """What two requests are ordered by."""
        return self.gpus, self.memory_mib or 0, self.minutes or 0, self.cpus


def settings(style: str | None, root: Path) -> dict | None:
    """The checked profiles/cluster.yaml with the `style` in which a profile asks for GPUs; None without such a profile.

    Raises:
        ConfigError: an unknown style, or a mistake in the file.
    """
    if style is None:
        return None
    if style not in STYLES:
        raise ConfigError("command line", "--config cluster", style, STYLES)
    return {
        **check(
            read_yaml(paths.find(root, FILE), FILE), paths.SCHEMAS / "cluster.schema.yaml", FILE
        ),
        "style": style,
    }


def resources(given: dict, gpus: int) -> dict[str, str | int | None]:
    """Those of RESOURCES that a job with `gpus` GPUs asks for.

    SLURM's executor passes on both `gpu` and `gres`, so one of them is always 0 or nothing; that of Kubernetes fails at
    `gpu: 0` without a manufacturer.
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


def ask(name: str, found: dict) -> Ask:
    """What a submission asks for, from the resources that Snakemake found for it; what it cannot know yet is None."""
    numbers = {key: value for key, value in found.items() if isinstance(value, int)}
    _, *model, count = str(found.get("gres") or f"gpu:{numbers.get('gpu', 0)}").split(":")
    return Ask(
        name,
        found.get("slurm_partition"),
        numbers.get("_cores", 1),
        numbers.get("mem_mb"),
        numbers.get("runtime"),
        int(count),
        found.get("gpu_model") or (model[0] if model else None),
    )


def options(
    given: dict | None, study: str, cpu_threads: int, cores: int | None, gpus: int | None
) -> list[str]:
    """What a profile for another kind of machine, or none of ours, has set: it would clip requests without a word."""
    found = []
    if given is None:
        found.append(ConfigError("command line", "--config cluster", None, STYLES))
    if cores is not None and cores < cpu_threads:
        found.append(
            ConfigError(
                study,
                "cpu_threads",
                cpu_threads,
                f"at most {cores}, as --cores says (those of this machine with --profile)",
            )
        )
    if gpus == 1:
        found.append(
            ConfigError("command line", "--resources gpu", gpus, "no limit: SLURM counts GPUs")
        )
    return [str(error) for error in found]


def unlike(asks: Iterable[Ask], arrays: str | None) -> list[str]:
    """Rules to be submitted as arrays whose jobs differ: an array asks for all of them what its first job needs."""
    named = {name.strip() for name in (arrays or "").replace(";", ",").split(",")}
    kinds: dict[str, set[Ask]] = {}
    for one in asks:
        if named & {one.name, "all"}:
            kinds.setdefault(one.name, set()).add(one)
    return [
        _differ(*sorted(different, key=lambda one: one.size))
        for different in kinds.values()
        if len(different) > 1
    ]


def _differ(least: Ask, *others: Ask) -> str:
    key = next(key for key in Ask._fields if getattr(least, key) != getattr(others[-1], key))
    range_ = f"{key} from {getattr(least, key)} to {getattr(others[-1], key)}"
    allowed = f"rules whose jobs ask for the same, and these ask for {range_}; --set-resources levels them"
    return str(ConfigError("command line", "--slurm-array-jobs", least.name, allowed))
