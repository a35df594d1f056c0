"""What jobs ask of a cluster beside CPUs, memory and time, where a profile says `config: [cluster=...]`. No rules; included last."""


def asked(name, gpus):
    """A resource of jobs that take `gpus` GPUs, in the executor's words; a job that has begun (locally, on its node) has its own."""

    def value(wildcards, input, attempt, threads, rulename, async_run):
        given = dict(
            input=input, attempt=attempt, threads=threads, rulename=rulename, async_run=async_run
        )
        count = gpus.evaluate(wildcards, **given).value or 0
        begun = workflow.executor_plugin.name == "local"
        return (dict(gpu=count) if begun else cluster.resources(CLUSTER, count)).get(name)

    return value


if CLUSTER:
    for one in workflow.rules:
        wanted = one.resources.get("gpu")
        for name in cluster.RESOURCES:
            if (
                name == "gpu" or name not in one.resources
            ):  # what a rule or a command line names itself stays
                one.resources[name] = asked(name, wanted)
        one.resources.setdefault(
            "gpu_memory_gib", "0"
        )  # a text must be the same in all jobs of a submission
        one.resources["turn"] = (
            1  # a submission of several jobs runs one after another: it needs what the largest needs
        )
    workflow.register_resource("turn", 1)
    workflow.resourcescope(turn="local")
else:
    for one in workflow.rules:
        one.group = None  # a submission; here it would only cost: Snakemake's time grows with the square of ready groups
