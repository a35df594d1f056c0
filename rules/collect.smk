"""Tidy tables: one row for each run, or for each epoch, example or phase of it.

Reads: the results of one measurement. A result that answers another request is refused.
Writes: {results}/tables/{table}.csv, with Parquet, Markdown and LaTeX beside it.
"""


rule collect:
    """Gather the results of one measurement into a tidy table."""
    input:
        planned=planned("tables/{table}.csv"),
        read=reads("tables/{table}.csv"),
    output:
        csv="<results>/tables/{table}.csv",
        md="<results>/tables/{table}.md",
        tex="<results>/tables/{table}.tex",
        parquet="<results>/tables/{table}.parquet",
    log:
        "<logs>/collect/{table}.log",
    wildcard_constraints:
        table="|".join(outputs.TABLE_SOURCES),
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=document_request("tables/{table}.csv"),
    shell:
        r"""
        exec python -m rankwise.execution.worker_client --documents collect \
            --request @results/.requests/{params.request}.json --output {output.csv:q} >{log:q} 2>&1 </dev/null
        """


rule collect_examples:
    """Gather the scores of every run, by example of the reported split."""
    input:
        planned=planned(outputs.EXAMPLES),
        read=reads(outputs.EXAMPLES),
    output:
        "<results>/tables/examples.parquet",
    log:
        "<logs>/collect_examples.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=document_request(outputs.EXAMPLES),
    shell:
        r"""
        exec python -m rankwise.execution.worker_client --documents collect \
            --request @results/.requests/{params.request}.json --output {output:q} >{log:q} 2>&1 </dev/null
        """
