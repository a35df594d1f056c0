"""Profiles: one measured quantity, one rule, one process. Memory and FLOPs need only shapes; nothing is downloaded."""


rule memory:
    """Bytes that training keeps between steps."""
    output:
        "results/profiles/{model}/{dataset}/{method}/r{rank}/memory.json",
    log:
        "logs/memory/{model}/{dataset}/{method}/r{rank}.log",
    conda:
        "../envs/environment.yaml"
    params:
        request=request_of("memory"),
    shell:
        "python workflow_scripts/memory.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"


rule flops:
    """FLOPs of one training step."""
    output:
        "results/profiles/{model}/{dataset}/{method}/r{rank}/flops.json",
    log:
        "logs/flops/{model}/{dataset}/{method}/r{rank}.log",
    conda:
        "../envs/environment.yaml"
    params:
        request=request_of("flops"),
    shell:
        "python workflow_scripts/flops.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"


rule forward:
    """Latency and FLOPs of a forward pass."""
    output:
        "results/profiles/{model}/{dataset}/{method}/r{rank}/forward.json",
    log:
        "logs/forward/{model}/{dataset}/{method}/r{rank}.log",
    conda:
        "../envs/environment.yaml"
    threads: PLAN.study["cpu_threads"]
    params:
        request=request_of("forward"),
    shell:
        "python workflow_scripts/forward.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"
