"""The page that shows a study: every figure and table that it has, in one file."""


rule index:
    """Write results/index.html, which opens offline."""
    input:
        figures=[f"results/figures/{name}.svg" for name in outputs.figures(PLAN)],
        tables=[f"results/tables/{name}.csv" for name in outputs.page_tables(PLAN)],
    output:
        "results/index.html",
    log:
        "logs/index.log",
    conda:
        "../envs/environment.yaml"
    params:
        request=dumps(outputs.page_request(PLAN)),
    shell:
        "python workflow_scripts/index.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"
