"""Tidy tables: one row a run (or an epoch of it), from results that answer the planned requests. Stale ones are refused."""


rule collect:
    """Gather one measurement's results into results/tables/{table}.csv, with Parquet, Markdown and LaTeX beside it."""
    input:
        lambda wildcards: results_of(wildcards.table),
    output:
        csv="results/tables/{table}.csv",
        md="results/tables/{table}.md",
        tex="results/tables/{table}.tex",
        parquet="results/tables/{table}.parquet",
    log:
        "logs/collect/{table}.log",
    wildcard_constraints:
        table="|".join(outputs.TABLE_SOURCES),
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=lambda wildcards: dumps(outputs.table_request(PLAN, wildcards.table)),
    shell:
        "python workflow_scripts/collect.py --request {params.request:q} --output {output.csv:q} > {log:q} 2>&1"


rule collect_examples:
    """Gather every run's scores by example of the reported split into results/tables/examples.parquet."""
    input:
        results_of("runs"),
    output:
        outputs.EXAMPLES,
    log:
        "logs/collect/examples.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=dumps(outputs.table_request(PLAN, "examples")),
    shell:
        "python workflow_scripts/collect.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"
