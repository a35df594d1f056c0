"""Tables of the paper: what each curve reaches and costs, and which differences are shown.

Reads: the tidy tables.
Writes: {results}/tables/{estimates,comparisons,summary,fronts,views}.csv and
{results}/tables/evaluations_{summary,comparisons}.csv, with Parquet, Markdown and LaTeX beside each.
"""


rule evidence:
    """Each curve's metric with its interval, and every pair of curves compared."""
    input:
        planned=planned("tables/estimates.csv"),
        read=reads("tables/estimates.csv"),
    output:
        estimates=multiext("<results>/tables/estimates", ".csv", ".md", ".tex", ".parquet"),
        comparisons=multiext("<results>/tables/comparisons", ".csv", ".md", ".tex", ".parquet"),
    log:
        "<logs>/evidence.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=document_request("tables/estimates.csv"),
    shell:
        r"""
        exec python -m rankwise.execution.worker_client --documents evidence \
            --request @results/.requests/{params.request}.json --output {output.estimates[0]:q} >{log:q} 2>&1 </dev/null
        """


rule summary:
    """The paper's table: mean and interval, best, tied and undecided; parameters, memory, time."""
    input:
        planned=planned("tables/summary.csv"),
        read=reads("tables/summary.csv"),
    output:
        csv="<results>/tables/summary.csv",
        md="<results>/tables/summary.md",
        tex="<results>/tables/summary.tex",
        parquet="<results>/tables/summary.parquet",
    log:
        "<logs>/summary.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=document_request("tables/summary.csv"),
    shell:
        r"""
        exec python -m rankwise.execution.worker_client --documents summary \
            --request @results/.requests/{params.request}.json --output {output.csv:q} >{log:q} 2>&1 </dev/null
        """


rule views:
    """Fronts of quality against each cost, and the best method within each budget."""
    input:
        planned=planned("tables/fronts.csv"),
        read=reads("tables/fronts.csv"),
    output:
        fronts=multiext("<results>/tables/fronts", ".csv", ".md", ".tex", ".parquet"),
        views=multiext("<results>/tables/views", ".csv", ".md", ".tex", ".parquet"),
    log:
        "<logs>/views.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=document_request("tables/fronts.csv"),
    shell:
        r"""
        exec python -m rankwise.execution.worker_client --documents views \
            --request @results/.requests/{params.request}.json --output {output.views[0]:q} >{log:q} 2>&1 </dev/null
        """


rule evaluated:
    """Each curve's score on an evaluation's task, and every pair of curves compared."""
    input:
        planned=planned("tables/evaluations_summary.csv"),
        read=reads("tables/evaluations_summary.csv"),
    output:
        summary=multiext("<results>/tables/evaluations_summary", ".csv", ".md", ".tex", ".parquet"),
        comparisons=multiext(
            "<results>/tables/evaluations_comparisons", ".csv", ".md", ".tex", ".parquet"
        ),
    log:
        "<logs>/evaluated.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=document_request("tables/evaluations_summary.csv"),
    shell:
        r"""
        exec python -m rankwise.execution.worker_client --documents evaluated \
            --request @results/.requests/{params.request}.json --output {output.summary[0]:q} >{log:q} 2>&1 </dev/null
        """
