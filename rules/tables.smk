"""Tables of the paper, from the tidy ones."""


rule summary:
    """The paper's table: mean and deviation over seeds, with parameters and optimizer memory."""
    input:
        runs="results/tables/runs.csv",
        memory="results/tables/memory.csv" if PLAN.cells("memory") else [],
    output:
        csv="results/tables/summary.csv",
        md="results/tables/summary.md",
        tex="results/tables/summary.tex",
        parquet="results/tables/summary.parquet",
    log:
        "logs/summary.log",
    conda:
        "../envs/environment.yaml"
    params:
        request=dumps(outputs.summary_request(PLAN)),
    shell:
        "python workflow_scripts/summary.py --request {params.request:q} --output {output.csv:q} > {log:q} 2>&1"
