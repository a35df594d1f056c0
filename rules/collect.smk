"""Tidy tables: one row for each run, or for each epoch, example or phase of it.

Reads: the results of one measurement. A result that answers another request is refused.
Writes: results/tables/{table}.csv, with Parquet, Markdown and LaTeX beside it.
"""


rule collect:
    """Gather the results of one measurement into a tidy table."""
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
        request=lambda wildcards: requests.write(outputs.table_request(PLAN, wildcards.table)),
    shell:
        r"""
        exec python -m rankwise.execution.script collect \
            --request @results/.requests/{params.request}.json --output {output.csv:q} >{log:q} 2>&1
        """


rule collect_examples:
    """Gather the scores of every run, by example of the reported split."""
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
        request=requests.write(outputs.table_request(PLAN, "examples")),
    shell:
        r"""
        exec python -m rankwise.execution.script collect \
            --request @results/.requests/{params.request}.json --output {output:q} >{log:q} 2>&1
        """
