"""Datasets and models at pinned revisions, brought into results/inputs and checked."""


rule prepare_dataset:
    """Write a dataset's splits: train, the selection slice held out of it, and the reported split."""
    output:
        "results/inputs/datasets/{dataset}/dataset.json",
    log:
        "logs/prepare_dataset/{dataset}.log",
    conda:
        "../envs/environment.yaml"
    params:
        request=input_request("dataset", "dataset"),
    shell:
        "python workflow_scripts/prepare_dataset.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"


rule prepare_model:
    """Copy a pretrained model from the hub or from a folder."""
    output:
        "results/inputs/models/{model}/model.json",
    log:
        "logs/prepare_model/{model}.log",
    conda:
        "../envs/environment.yaml"
    params:
        request=input_request("model", "model"),
    shell:
        "python workflow_scripts/prepare_model.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"


rule pretrain_model:
    """Pre-train a tiny model on its corpus."""
    input:
        lambda wildcards: PLAN.input_path("dataset", PLAN.corpus(wildcards.pretrained)),
    output:
        "results/inputs/models/{pretrained}/model.json",
    log:
        "logs/pretrain_model/{pretrained}.log",
    conda:
        "../envs/environment.yaml"
    threads: lambda wildcards: PLAN.library["models"][wildcards.pretrained]["weights"]["pretrain"]["cpu_threads"]
    params:
        request=input_request("model", "pretrained"),
    shell:
        "exec python -m rankwise.execution.worker_client workflow_scripts/pretrain_model.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"


ruleorder: pretrain_model > prepare_model
