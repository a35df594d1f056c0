"""The page that shows a study: every figure, table and run that it has, in one file."""


rule report:
    """Write results/report.html, which opens offline."""
    input:
        figures=[f"{outputs.figure_stem(name)}.svg" for name in outputs.page_figures(PLAN)],
        shown=[f"{outputs.table_stem(name)}.csv" for name in outputs.page_tables(PLAN)],
        drawn=[f"{outputs.table_stem(name)}.csv" for name in outputs.page_data(PLAN)],
        results=[
            results_of(name) for name in outputs.page_data(PLAN) if name in outputs.TABLE_SOURCES
        ],
    output:
        outputs.REPORT,
    log:
        "logs/report.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=dumps(outputs.page_request(PLAN)),
    shell:
        "python workflow_scripts/report.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"
