"""Training: one job a cell, one file a job. The request is its only scientific parameter."""


rule train:
    """Fine-tune one cell."""
    input:
        dataset="results/inputs/datasets/{dataset}/dataset.json",
        model="results/inputs/models/{model}/model.json",
        search=lambda wildcards: outputs.selected(PLAN, cell_of(wildcards)),
    output:
        "results/runs/{model}/{dataset}/{method}/r{rank}/seed{seed}/train.json",
    log:
        "logs/train/{model}/{dataset}/{method}/r{rank}/seed{seed}.log",
    conda:
        "../envs/environment.yaml"
    threads: PLAN.study["cpu_threads"]
    resources:
        gpu=cards_of("train"),
        gpu_memory_gib=card_memory_of("train"),
        mem_mb=training_memory,
        runtime=training_minutes,
    params:
        request=request_of("train"),
    shell:
        "exec python -m rankwise.execution.worker_client --gpu {resources.gpu} --gpu-memory-gib {resources.gpu_memory_gib} "
        "workflow_scripts/train.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"
