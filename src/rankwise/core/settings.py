"""Every environment variable that Rankwise reads, with its default and its meaning.

The documentation's page of environment variables is generated from `VARIABLES`. Variables that a
study names in paths (`${RANKWISE_DATA}`) are the user's own and are expanded by `core.paths`.

Standard library only: the Snakefile imports this module.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple


class Variable(NamedTuple):
    """One environment variable."""

    default: str
    meaning: str


VARIABLES = {
    "RANKWISE_ENVIRONMENT": Variable(
        "",
        "`recorded` lets jobs run with package versions other than those of the lock; each result "
        "records the differences. Otherwise such a job is refused.",
    ),
    "RANKWISE_WARM": Variable(
        "1",
        "`0` runs each job in a fresh process instead of a fork of a process that has imported "
        "torch. The workflow sets it to `0` on clusters.",
    ),
    "RANKWISE_STORE": Variable(
        "",
        "The folder of the store, in place of `results/store`. Further stores behind it, separated "
        "by colons, are read and never written.",
    ),
    "RANKWISE_TRACKER": Variable(
        "none",
        "The experiment tracker of training runs. The workflow sets it from the study's `tracker`.",
    ),
    "RANKWISE_STUDY": Variable(
        "study",
        "The study's name, for the experiment tracker: its project, and its folder in "
        "`logs/tracking`. The workflow sets it.",
    ),
    "RANKWISE_PLANNER": Variable(
        "",
        "The process that planned a job, which ends with it: host, process number, boot and start "
        "time. The workflow sets it.",
    ),
    "RANKWISE_IMAGE": Variable(
        "", "The container image of `--sdm apptainer`, in place of the one in `docker/image`."
    ),
    "RANKWISE_CARDS": Variable(
        "",
        "A JSON file with a list of GPUs (`uuid`, `name`, `memory_gib`) that replaces what "
        "nvidia-smi reports: to use some GPUs only, or to simulate them.",
    ),
    "RANKWISE_LEASES": Variable(
        "/tmp/rankwise-cards",
        "The folder of GPU leases. All users of a machine, and its containers, share one folder.",
    ),
    "RANKWISE_LEASE_HOURS": Variable(
        "72",
        "The longest time that a job waits for a GPU, in hours. Then it fails and says who has it.",
    ),
    "RANKWISE_CARD": Variable(
        "{}", "Set by the workflow for a job that leases a GPU: its lease as JSON."
    ),
    "CUDA_VISIBLE_DEVICES": Variable("", "The GPUs that jobs may use. Set for a job by its lease."),
    "HF_HUB_OFFLINE": Variable(
        "0", "`1` reads models and datasets from the Hugging Face cache and opens no connection."
    ),
    "HF_HOME": Variable(
        "~/.cache/huggingface", "The folder of the Hugging Face libraries, with the hub's cache."
    ),
    "HF_HUB_CACHE": Variable("", "The hub's cache, in place of `hub` in `HF_HOME`."),
    "HF_ENDPOINT": Variable(
        "https://huggingface.co", "The Hugging Face hub, or a mirror of it, to download from."
    ),
    "WORLD_SIZE": Variable(
        "1",
        "The number of processes of a training; set by a job with `processes`, and by torchrun.",
    ),
    "LOCAL_RANK": Variable(
        "0", "The number of a process on its machine, which is that of its GPU; set as WORLD_SIZE."
    ),
    "RANK": Variable("0", "The number of a process of a training; set as WORLD_SIZE."),
    "RANKWISE_RENDEZVOUS": Variable(
        "",
        "The file by which the processes of a training find each other. A job with `processes` "
        "sets it for them.",
    ),
    "TRACKIO_DIR": Variable(
        "", "Where the tracker trackio keeps its runs. A training sets it if it is not set."
    ),
    "ATEN_CPU_CAPABILITY": Variable(
        "",
        "Read by torch: the instruction set of its CPU kernels (`default`, `avx2`, `avx512`), in "
        "place of the best that the processor has. Each result records it.",
    ),
    "TMPDIR": Variable("", "The folder for temporary files, where the system has another default."),
}


def read(name: str, environment: Mapping[str, str] | None = None) -> str:
    """The value of a variable, or its default if it is not set or empty.

    Args:
        name: A key of `VARIABLES`.
        environment: The variables to look in; those of this process if not given.
    """
    return given(name, environment) or VARIABLES[name].default


def given(name: str, environment: Mapping[str, str] | None = None) -> str | None:
    """The value of a variable as it is set, which may be empty; None if it is not set."""
    assert name in VARIABLES, name
    return (os.environ if environment is None else environment).get(name)
