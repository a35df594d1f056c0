"""A study's results in the layouts of published systems, for the scripts of their users.

Reads: tidy tables and the results of runs. Made when asked for.
Writes: {results}/exports/README.md, which stands for the files beside it.
"""


rule exports:
    """Write results/exports anew."""
    input:
        planned=planned(outputs.EXPORTS),
        read=reads(outputs.EXPORTS),
    output:
        "<results>/exports/README.md",
    log:
        "<logs>/exports.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=document_request(outputs.EXPORTS),
    shell:
        r"""
        exec python -m rankwise.execution.worker_client --documents exports \
            --request @results/.requests/{params.request}.json --output {output:q} >{log:q} 2>&1 </dev/null
        """
