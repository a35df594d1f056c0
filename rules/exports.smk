"""A study's results in the layouts of published systems, for their users' scripts. Made when asked for."""


rule exports:
    """Write results/exports: the README stands for the files beside it, which the job makes anew."""
    input:
        tables=[f"results/tables/{name}.csv" for name in outputs.export_tables(PLAN)],
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
        request=dumps(outputs.exports_request(PLAN)),
    shell:
        "python workflow_scripts/exports.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"
