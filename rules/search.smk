"""Searches: trials of settings, and the choice among the trials of a cell.

Reads: the prepared dataset and model. Trials never read the reported split.
Writes: {results}/search/{model}/{dataset}/{method}/r{rank}/{trial}/seed{seed}/{digest}/trial.json, one
for each trial, and selected.json, which the runs of the cell read.
"""


rule trial:
    """Fine-tune one trial of a cell's search."""
    input:
        dataset=input_of("dataset"),
        model=input_of("model"),
    output:
        "<results>/search/{model}/{dataset}/{method}/r{rank}/{trial}/seed{seed}/{digest}/trial.json",
    log:
        "<logs>/trial/{model}/{dataset}/{method}/r{rank}/{trial}/seed{seed}/{digest}.log",
    conda:
        "../envs/environment.yaml"
    threads: threads_of("trial")
    resources:
        gpu=gpus_of("trial"),
        gpu_memory_gib=gpu_memory_of("trial"),
        mem_mb=training_memory,
        runtime=training_minutes,
    params:
        request=request_of("trial"),
        title=title_of("trial"),
    shell:
        r"""
        exec python -m rankwise.execution.worker_client \
            --gpu {resources.gpu} --gpu-memory-gib {resources.gpu_memory_gib} \
            trial --request @results/.requests/{params.request}.json --title {params.title:q} \
            --output {output:q} >{log:q} 2>&1 </dev/null
        """


rule choose:
    """Choose the trial with the lowest loss on the selection slice; needs no torch."""
    input:
        lambda wildcards: PLAN.trial_paths(cell_of(wildcards)),
    output:
        "<results>/search/{model}/{dataset}/{method}/r{rank}/{digest}/selected.json",
    log:
        "<logs>/choose/{model}/{dataset}/{method}/r{rank}/{digest}.log",
    localrule: True
    conda:
        "../envs/environment.yaml"
    params:
        request=lambda wildcards: planned_request(PLAN.choice(cell_of(wildcards)), wildcards),
        title=lambda wildcards: requests.title(PLAN.choice(cell_of(wildcards))),
    shell:
        r"""
        exec python -m rankwise.execution.script choose \
            --request @results/.requests/{params.request}.json --title {params.title:q} \
            --output {output:q} >{log:q} 2>&1 </dev/null
        """
