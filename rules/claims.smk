"""Published numbers and what becomes of them here."""


rule claims:
    """Compare every claim with the table that decides it, if the study has that."""
    input:
        [f"results/tables/{name}.csv" for name in outputs.claim_inputs(PLAN)],
    output:
        csv="results/claims.csv",
        md="results/claims.md",
        tex="results/claims.tex",
        parquet="results/claims.parquet",
    log:
        "logs/claims.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=dumps(outputs.claims_request(PLAN)),
    shell:
        "python workflow_scripts/claims.py --request {params.request:q} --output {output.csv:q} > {log:q} 2>&1"


rule claims_figure:
    """Draw how far ours are from the published numbers."""
    input:
        "results/claims.csv",
        [f"results/tables/{name}.csv" for name in outputs.claim_tables(PLAN)],
    output:
        png=report("results/claims.png", caption="captions/claims.rst", category="Claims"),
        svg="results/claims.svg",
        pdf="results/claims.pdf",
    log:
        "logs/claims_figure.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=dumps(outputs.claims_figure_request(PLAN)),
    shell:
        "python workflow_scripts/claims_figure.py --request {params.request:q} --output {output.png:q} > {log:q} 2>&1"
