"""`rankwise doctor` on a login node of a cluster."""

from pathlib import Path

from helpers.doctoring import NO_GPU, OFFLINE, PAPER, facts_of
from helpers.repository import edit
from rankwise.cli import doctor_text

SINFO = 'echo "main*|n1|64|256000|2-00:00:00|(null)"; echo "main*|n2|64|256000|2-00:00:00|(null)"; echo "{cards}"'


def test_a_cluster_that_could_run_it_is_named(clone: Path, tools) -> None:
    path = tools(sinfo=SINFO.format(cards="cards|n3|64|512000|2-00:00:00|gpu:h100:4"))
    edit(clone / "profiles/cluster.yaml", "gpu_partition:    #", "gpu_partition: cards    #")
    found = facts_of(clone, PAPER, 0, PATH=path, **OFFLINE, **NO_GPU)
    assert found["cluster"] == {"problems": [], "gpu": ["cards"], "cpu": ["main", "cards"]}
    assert found["command"] == "snakemake --profile profiles/slurm"
    assert [node["count"] for node in found["machine"]["slurm"]["nodes"]] == [2, 1]
    text = doctor_text.text(found)
    assert "main (default): 2 nodes of 64 CPUs, 250.0 GiB, no GPU; at most 2 days" in text
    assert "- on this machine alone: config/config.yaml: device: got cuda" in text
    assert "- SLURM, jobs with a GPU: partition cards" in text
    assert text.endswith(
        "config/config.yaml can run on this cluster: snakemake --profile profiles/slurm"
    )


def test_a_cluster_that_could_not_is_told_why(clone: Path, tools) -> None:
    path = tools(sinfo=SINFO.format(cards="cards|n3|64|2000|2-00:00:00|gpu:h100:4"))
    found = facts_of(clone, PAPER, 1, PATH=path, **OFFLINE, **NO_GPU)
    assert found["cluster"]["gpu"] == []
    assert (
        "profiles/cluster.yaml: gpu_partition: got 'main', allowed: cards"
        in found["cluster"]["problems"]
    )
    edit(clone / "profiles/cluster.yaml", "gpu_partition:    #", "gpu_partition: cards    #")
    found = facts_of(clone, PAPER, 1, PATH=path, **OFFLINE, **NO_GPU)
    assert found["runs"] is None
    assert "MiB of a node in partition cards" in found["cluster"]["problems"][0]
