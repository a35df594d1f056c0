"""The page that shows a study: every figure, table and run that it has, in one file.

Reads: figures, tables and results.
Writes: {results}/report.html, which opens offline.
"""


rule report:
    """Write the page."""
    input:
        planned=planned(outputs.REPORT),
        read=reads(outputs.REPORT),
    output:
        "<results>/report.html",
    log:
        "<logs>/report.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=document_request(outputs.REPORT),
    shell:
        r"""
        exec python -m rankwise.execution.worker_client --documents report \
            --request @results/.requests/{params.request}.json --output {output:q} >{log:q} 2>&1 </dev/null
        """
