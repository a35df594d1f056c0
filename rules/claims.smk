"""Published numbers and what becomes of them here."""


rule claims:
    """Compare every claim with the table that decides it, if the study has that."""
    input:
        [f"results/tables/{name}.csv" for name in outputs.claim_tables(PLAN)],
    output:
        csv="results/tables/claims.csv",
        md="results/tables/claims.md",
        tex="results/tables/claims.tex",
    log:
        "logs/claims.log",
    conda:
        "../envs/environment.yaml"
    params:
        request=dumps(outputs.claims_request(PLAN)),
    shell:
        "python workflow_scripts/claims.py --request {params.request:q} --output {output.csv:q} > {log:q} 2>&1"
