"""Figures, each from the tidy tables that it needs and no others; PNG and SVG."""


rule figure:
    """Draw results/figures/{figure}.png and .svg."""
    input:
        lambda wildcards: [f"results/tables/{table}.csv" for table in outputs.FIGURE_TABLES[wildcards.figure]],
    output:
        png="results/figures/{figure}.png",
        svg="results/figures/{figure}.svg",
    log:
        "logs/figure/{figure}.log",
    wildcard_constraints:
        figure="|".join(outputs.FIGURE_TABLES),
    conda:
        "../envs/environment.yaml"
    params:
        request=lambda wildcards: dumps(outputs.figure_request(PLAN, wildcards.figure)),
    shell:
        "python workflow_scripts/figure.py --request {params.request:q} --output {output.png:q} > {log:q} 2>&1"
