"""Profiles: one measured quantity, one rule, one process.

Reads: nothing but the request. All profiles except times need only shapes; nothing is downloaded.
Predictions, and profiles with `sequence_length_tokens: dataset`, also read the prepared dataset and
model, for the lengths of the texts.
Writes: {results}/profiles/{model}/{dataset}/{method}/r{rank}/{digest}/{quantity}.json
"""


rule memory:
    """Bytes that training keeps between steps."""
    output:
        "<results>/profiles/{model}/{dataset}/{method}/r{rank}/{digest}/memory.json",
    log:
        "<logs>/memory/{model}/{dataset}/{method}/r{rank}/{digest}.log",
    group:
        group_of("memory")
    conda:
        "../envs/environment.yaml"
    resources:
        gpu=gpus_of("memory"),
        gpu_memory_gib=gpu_memory_of("memory"),
        mem_mb=memory_of("memory"),
        runtime=60,
    params:
        request=request_of("memory"),
        title=title_of("memory"),
        script="memory",
    shell:
        r"""
        exec python -m rankwise.execution.worker_client \
            --gpu {resources.gpu} --gpu-memory-gib {resources.gpu_memory_gib} \
            {params.script} --request @results/.requests/{params.request}.json --title {params.title:q} \
            --output {output:q} >{log:q} 2>&1 </dev/null
        """


use rule memory as flops with:
    """FLOPs of one training step, by phase."""
    output:
        "<results>/profiles/{model}/{dataset}/{method}/r{rank}/{digest}/flops.json",
    log:
        "<logs>/flops/{model}/{dataset}/{method}/r{rank}/{digest}.log",
    group:
        group_of("flops")
    resources:
        gpu=gpus_of("flops"),
        gpu_memory_gib=gpu_memory_of("flops"),
        mem_mb=memory_of("flops"),
        runtime=60,
    params:
        request=request_of("flops"),
        title=title_of("flops"),
        script="flops",


use rule memory as ledger with:
    """Bytes of a training step by phase and kind: predicted, and measured where asked for."""
    input:
        data_of("ledger"),
    output:
        "<results>/profiles/{model}/{dataset}/{method}/r{rank}/{digest}/ledger.json",
    log:
        "<logs>/ledger/{model}/{dataset}/{method}/r{rank}/{digest}.log",
    group:
        group_of("ledger")
    resources:
        gpu=gpus_of("ledger"),
        gpu_memory_gib=gpu_memory_of("ledger"),
        mem_mb=memory_of("ledger"),
        runtime=60,
    params:
        request=request_of("ledger"),
        title=title_of("ledger"),
        script="ledger",


use rule memory as fits with:
    """The largest batch that fits in memory of a given size, by sequence length."""
    input:
        data_of("fits"),
    output:
        "<results>/profiles/{model}/{dataset}/{method}/r{rank}/{digest}/fits.json",
    log:
        "<logs>/fits/{model}/{dataset}/{method}/r{rank}/{digest}.log",
    group:
        group_of("fits")
    resources:
        gpu=gpus_of("fits"),
        gpu_memory_gib=gpu_memory_of("fits"),
        mem_mb=memory_of("fits"),
        runtime=60,
    params:
        request=request_of("fits"),
        title=title_of("fits"),
        script="fits",


use rule memory as predict with:
    """Peak memory and FLOPs that one training run will need.

    No input of training: for Snakemake 9.27 an `ancient` input hides other reasons to run.
    """
    input:
        data_of("predict"),
    output:
        "<results>/profiles/{model}/{dataset}/{method}/r{rank}/{digest}/predict.json",
    log:
        "<logs>/predict/{model}/{dataset}/{method}/r{rank}/{digest}.log",
    group:
        group_of("predict")
    resources:
        gpu=gpus_of("predict"),
        gpu_memory_gib=gpu_memory_of("predict"),
        mem_mb=memory_of("predict"),
        runtime=60,
    params:
        request=request_of("predict"),
        title=title_of("predict"),
        script="predict",


use rule memory as forward with:
    """Latency and FLOPs of a forward pass."""
    output:
        "<results>/profiles/{model}/{dataset}/{method}/r{rank}/{digest}/forward.json",
    log:
        "<logs>/forward/{model}/{dataset}/{method}/r{rank}/{digest}.log",
    group:
        group_of("forward")
    threads: PLAN.study["cpu_threads"]
    resources:
        gpu=gpus_of("forward"),
        gpu_memory_gib=gpu_memory_of("forward"),
        mem_mb=memory_of("forward"),
        runtime=60,
    params:
        request=request_of("forward"),
        title=title_of("forward"),
        script="forward",


use rule memory as throughput with:
    """Times of a training step, samples and tokens a second, energy."""
    output:
        "<results>/profiles/{model}/{dataset}/{method}/r{rank}/{digest}/throughput.json",
    log:
        "<logs>/throughput/{model}/{dataset}/{method}/r{rank}/{digest}.log",
    group:
        group_of("throughput")
    threads: PLAN.study["cpu_threads"]
    resources:
        gpu=gpus_of("throughput"),
        gpu_memory_gib=gpu_memory_of("throughput"),
        mem_mb=memory_of("throughput"),
        runtime=60,
    params:
        request=request_of("throughput"),
        title=title_of("throughput"),
        script="throughput",


rule predictions:
    """Predict every training run; schedulers are then asked for that much memory and time."""
    input:
        [PLAN.path("predict", cell) for cell in PLAN.cells("predict")],
