"""Figures, each from the tidy tables that it needs and no others; PNG, SVG and PDF, with captions for Snakemake's report."""

from rankwise.study.captions import CAPTIONS


rule figure:
    """Draw results/figures/{figure}.png, .svg and .pdf."""
    input:
        lambda wildcards: [f"results/tables/{table}.csv" for table in outputs.FIGURE_TABLES[wildcards.figure]],
    output:
        png=report(
            "results/figures/{figure}.png",
            caption="caption.rst",
            category=lambda wildcards: CAPTIONS[wildcards.figure].category,
            labels=lambda wildcards: {"figure": CAPTIONS[wildcards.figure].title},
        ),
        svg="results/figures/{figure}.svg",
        pdf="results/figures/{figure}.pdf",
    log:
        "logs/figure/{figure}.log",
    wildcard_constraints:
        figure="|".join(outputs.FIGURE_TABLES),
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=lambda wildcards: dumps(outputs.figure_request(PLAN, wildcards.figure)),
    shell:
        "python workflow_scripts/figure.py --request {params.request:q} --output {output.png:q} > {log:q} 2>&1"
