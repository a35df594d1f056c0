"""What jobs ask of a cluster beside CPUs, memory and time, where a profile sets `config: [cluster=...]`.

This file has no rules. It is included last, because it changes the resources of all rules.
"""


def cluster_resource(name, gpus):
    """The value of one resource of a job that takes `gpus` GPUs, in the executor's words.

    A job that has begun (locally, on its node) keeps its own.
    """

    def value(wildcards, input, attempt, threads, rulename, async_run):
        given = dict(
            input=input, attempt=attempt, threads=threads, rulename=rulename, async_run=async_run
        )
        count = gpus.evaluate(wildcards, **given).value or 0
        if workflow.executor_plugin.name == "local":
            return dict(gpu=count).get(name)
        return slurm_request.resources(CLUSTER, count).get(name)

    return value


if CLUSTER:
    snakemake_adapter.share_resources(workflow, slurm_request.RESOURCES, cluster_resource)
else:
    snakemake_adapter.leave_groups(workflow.rules)
