"""The page that shows a study: every figure, table and run that it has, in one file.

Reads: figures, tables and results.
Writes: results/report.html, which opens offline.
"""


rule report:
    """Write the page."""
    input:
        figures=[f"{outputs.figure_stem(name)}.svg" for name in outputs.page_figures(PLAN)],
        shown=tables(outputs.page_tables(PLAN)),
        drawn=tables(outputs.page_data(PLAN)),
        results=[
            results_of(name) for name in outputs.page_data(PLAN) if name in outputs.TABLE_SOURCES
        ],
    output:
        outputs.REPORT,
    log:
        "logs/report.log",
    benchmark:
        "logs/report.benchmark.tsv"
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=requests.write(outputs.page_request(PLAN)),
    shell:
        r"""
        exec python -m rankwise.execution.script report \
            --request @results/.requests/{params.request}.json --output {output:q} >{log:q} 2>&1
        """
