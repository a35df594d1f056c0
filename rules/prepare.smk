"""Prepared inputs: datasets and models at pinned revisions, checked.

Reads: the hub, files, or a generator, as the entry says.
Writes: {results}/inputs/datasets/{dataset}/{digest}/dataset.json and
{results}/inputs/models/{model}/{digest}/model.json, with the data files beside the files in the store.
"""


rule prepare_dataset:
    """Write the splits of a dataset: train, the selection slice held out of it, the reported one."""
    output:
        "<results>/inputs/datasets/{dataset}/{digest}/dataset.json",
    log:
        "<logs>/prepare_dataset/{dataset}/{digest}.log",
    conda:
        "../envs/environment.yaml"
    params:
        request=input_request("dataset", "dataset"),
        title=input_title("dataset", "dataset"),
    shell:
        r"""
        exec python -m rankwise.execution.script prepare_dataset \
            --request @results/.requests/{params.request}.json --title {params.title:q} \
            --output {output:q} >{log:q} 2>&1 </dev/null
        """


rule prepare_model:
    """Copy a pretrained model from the hub or from a folder."""
    output:
        "<results>/inputs/models/{model}/{digest}/model.json",
    log:
        "<logs>/prepare_model/{model}/{digest}.log",
    conda:
        "../envs/environment.yaml"
    params:
        request=input_request("model", "model"),
        title=input_title("model", "model"),
    shell:
        r"""
        exec python -m rankwise.execution.script prepare_model \
            --request @results/.requests/{params.request}.json --title {params.title:q} \
            --output {output:q} >{log:q} 2>&1 </dev/null
        """


rule pretrain_model:
    """Pre-train a tiny model on its corpus."""
    input:
        lambda wildcards: PLAN.input_path("dataset", PLAN.corpus(wildcards.pretrained)),
    output:
        "<results>/inputs/models/{pretrained}/{digest}/model.json",
    log:
        "<logs>/pretrain_model/{pretrained}/{digest}.log",
    conda:
        "../envs/environment.yaml"
    threads: lambda wildcards: PLAN.pretraining_threads(wildcards.pretrained)
    params:
        request=input_request("model", "pretrained"),
        title=input_title("model", "pretrained"),
    shell:
        r"""
        exec python -m rankwise.execution.worker_client \
            pretrain_model --request @results/.requests/{params.request}.json --title {params.title:q} \
            --output {output:q} >{log:q} 2>&1 </dev/null
        """


ruleorder: pretrain_model > prepare_model
