"""Searches: trials, which never read the reported split, and the choice among those of a cell that its runs follow."""


rule trial:
    """Fine-tune one trial of a cell's search."""
    input:
        dataset="results/inputs/datasets/{dataset}/dataset.json",
        model="results/inputs/models/{model}/model.json",
    output:
        "results/search/{model}/{dataset}/{method}/r{rank}/{trial}/seed{seed}/trial.json",
    log:
        "logs/trial/{model}/{dataset}/{method}/r{rank}/{trial}/seed{seed}.log",
    conda:
        "../envs/environment.yaml"
    threads: PLAN.study["cpu_threads"]
    resources:
        gpu=cards_of("trial"),
        gpu_memory_gib=card_memory_of("trial"),
        mem_mb=training_memory,
        runtime=training_minutes,
    params:
        request=request_of("trial"),
    shell:
        "exec python -m rankwise.execution.worker_client --gpu {resources.gpu} --gpu-memory-gib {resources.gpu_memory_gib} "
        "workflow_scripts/trial.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"


rule choose:
    """Choose among the trials of a cell by loss on the selection slice; without torch, wherever Snakemake runs."""
    input:
        lambda wildcards: [one["result"] for one in PLAN.choice(cell_of(wildcards))["trials"]],
    output:
        "results/search/{model}/{dataset}/{method}/r{rank}/selected.json",
    log:
        "logs/choose/{model}/{dataset}/{method}/r{rank}.log",
    localrule: True
    conda:
        "../envs/environment.yaml"
    params:
        request=lambda wildcards: dumps(PLAN.choice(cell_of(wildcards))),
    shell:
        "python workflow_scripts/choose.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"
