"""Training: one job and one result file for each cell and seed.

Reads: the prepared dataset and model, and the choice of a search if the grid has one.
Writes: {results}/runs/{model}/{dataset}/{method}/r{rank}/seed{seed}/{digest}/train.json
"""


rule train:
    """Fine-tune one cell."""
    input:
        dataset=input_of("dataset"),
        model=input_of("model"),
        search=lambda wildcards: outputs.selected(PLAN, cell_of(wildcards)),
    output:
        "<results>/runs/{model}/{dataset}/{method}/r{rank}/seed{seed}/{digest}/train.json",
    log:
        "<logs>/train/{model}/{dataset}/{method}/r{rank}/seed{seed}/{digest}.log",
    conda:
        "../envs/environment.yaml"
    threads: threads_of("train")
    resources:
        gpu=gpus_of("train"),
        gpu_memory_gib=gpu_memory_of("train"),
        mem_mb=training_memory,
        runtime=training_minutes,
    params:
        request=request_of("train"),
        title=title_of("train"),
    shell:
        r"""
        exec python -m rankwise.execution.worker_client \
            --gpu {resources.gpu} --gpu-memory-gib {resources.gpu_memory_gib} \
            train --request @results/.requests/{params.request}.json --title {params.title:q} \
            --output {output:q} >{log:q} 2>&1 </dev/null
        """
