"""Evaluations: a task of its own, asked of the weights that a training run has kept.

Reads: the run's result with the weights beside it in the store, the prepared model, and a prepared
dataset where the evaluation generates answers to one.
Writes: {results}/evaluations/{model}/{dataset}/{method}/r{rank}/seed{seed}/{evaluation}/{digest}/evaluation.json
"""


rule evaluate:
    """Evaluate the kept weights of one cell on one task."""
    input:
        lambda wildcards: outputs.evaluated(PLAN, cell_of(wildcards)),
    output:
        "<results>/evaluations/{model}/{dataset}/{method}/r{rank}/seed{seed}/{evaluation}/{digest}/evaluation.json",
    log:
        "<logs>/evaluate/{model}/{dataset}/{method}/r{rank}/seed{seed}/{evaluation}/{digest}.log",
    conda:
        "../envs/environment.yaml"
    threads: PLAN.study["cpu_threads"]
    resources:
        gpu=gpus_of("evaluate"),
        gpu_memory_gib=gpu_memory_of("evaluate"),
        mem_mb=evaluation_memory,
        runtime=job_memory.UNKNOWN_MIN,
    params:
        request=request_of("evaluate"),
        title=title_of("evaluate"),
    shell:
        r"""
        exec python -m rankwise.execution.worker_client \
            --gpu {resources.gpu} --gpu-memory-gib {resources.gpu_memory_gib} \
            evaluate --request @results/.requests/{params.request}.json --title {params.title:q} \
            --output {output:q} >{log:q} 2>&1 </dev/null
        """
