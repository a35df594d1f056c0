"""A study's results in the layouts of published systems, for the scripts of their users.

Reads: tidy tables and the results of runs. Made when asked for.
Writes: results/exports/README.md, which stands for the files beside it.
"""


rule exports:
    """Write results/exports anew."""
    input:
        tables=tables(outputs.export_tables(PLAN)),
        runs=results_of("runs"),
    output:
        outputs.EXPORTS,
    log:
        "logs/exports.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=requests.write(outputs.exports_request(PLAN)),
    shell:
        r"""
        exec python -m rankwise.execution.script exports \
            --request @results/.requests/{params.request}.json --output {output:q} >{log:q} 2>&1
        """
