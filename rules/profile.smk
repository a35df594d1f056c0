"""Profiles: one measured quantity, one rule, one process. All but times need only shapes; nothing is downloaded."""


rule memory:
    """Bytes that training keeps between steps."""
    output:
        "results/profiles/{model}/{dataset}/{method}/r{rank}/memory.json",
    log:
        "logs/memory/{model}/{dataset}/{method}/r{rank}.log",
    group:
        group_of("memory")
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=memory_of("memory"),
        runtime=60,
    params:
        request=request_of("memory"),
    shell:
        "exec python -m rankwise.execution.worker_client workflow_scripts/memory.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"


rule flops:
    """FLOPs of one training step."""
    output:
        "results/profiles/{model}/{dataset}/{method}/r{rank}/flops.json",
    log:
        "logs/flops/{model}/{dataset}/{method}/r{rank}.log",
    group:
        group_of("flops")
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=memory_of("flops"),
        runtime=60,
    params:
        request=request_of("flops"),
    shell:
        "exec python -m rankwise.execution.worker_client workflow_scripts/flops.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"


rule forward:
    """Latency and FLOPs of a forward pass."""
    output:
        "results/profiles/{model}/{dataset}/{method}/r{rank}/forward.json",
    log:
        "logs/forward/{model}/{dataset}/{method}/r{rank}.log",
    group:
        group_of("forward")
    conda:
        "../envs/environment.yaml"
    threads: PLAN.study["cpu_threads"]
    resources:
        gpu=cards_of("forward"),
        gpu_memory_gib=card_memory_of("forward"),
        mem_mb=memory_of("forward"),
        runtime=60,
    params:
        request=request_of("forward"),
    shell:
        "exec python -m rankwise.execution.worker_client --gpu {resources.gpu} --gpu-memory-gib {resources.gpu_memory_gib} "
        "workflow_scripts/forward.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"


rule ledger:
    """Bytes of a training step by phase and kind: predicted, and measured."""
    output:
        "results/profiles/{model}/{dataset}/{method}/r{rank}/ledger.json",
    log:
        "logs/ledger/{model}/{dataset}/{method}/r{rank}.log",
    group:
        group_of("ledger")
    conda:
        "../envs/environment.yaml"
    resources:
        gpu=cards_of("ledger"),
        gpu_memory_gib=card_memory_of("ledger"),
        mem_mb=memory_of("ledger"),
        runtime=60,
    params:
        request=request_of("ledger"),
    shell:
        "exec python -m rankwise.execution.worker_client --gpu {resources.gpu} --gpu-memory-gib {resources.gpu_memory_gib} "
        "workflow_scripts/ledger.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"


rule fits:
    """The largest batch that memory of a size holds, by length."""
    output:
        "results/profiles/{model}/{dataset}/{method}/r{rank}/fits.json",
    log:
        "logs/fits/{model}/{dataset}/{method}/r{rank}.log",
    group:
        group_of("fits")
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=memory_of("fits"),
        runtime=60,
    params:
        request=request_of("fits"),
    shell:
        "exec python -m rankwise.execution.worker_client workflow_scripts/fits.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"


rule throughput:
    """Times of a training step, samples and tokens a second, energy."""
    output:
        "results/profiles/{model}/{dataset}/{method}/r{rank}/throughput.json",
    log:
        "logs/throughput/{model}/{dataset}/{method}/r{rank}.log",
    group:
        group_of("throughput")
    conda:
        "../envs/environment.yaml"
    threads: PLAN.study["cpu_threads"]
    resources:
        gpu=cards_of("throughput"),
        gpu_memory_gib=card_memory_of("throughput"),
        mem_mb=memory_of("throughput"),
        runtime=60,
    params:
        request=request_of("throughput"),
    shell:
        "exec python -m rankwise.execution.worker_client --gpu {resources.gpu} --gpu-memory-gib {resources.gpu_memory_gib} "
        "workflow_scripts/throughput.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"


rule predict:
    """Memory and FLOPs that one cell's training will need. No input of training: to Snakemake 9.27 `ancient` files hide other reasons."""
    output:
        "results/profiles/{model}/{dataset}/{method}/r{rank}/predict.json",
    log:
        "logs/predict/{model}/{dataset}/{method}/r{rank}.log",
    group:
        group_of("predict")
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=memory_of("predict"),
        runtime=60,
    params:
        request=request_of("predict"),
    shell:
        "exec python -m rankwise.execution.worker_client workflow_scripts/predict.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"


rule predictions:
    """What every training will need; schedulers are asked for that much once it is there."""
    input:
        [PLAN.path("predict", cell) for cell in PLAN.cells("predict")],
