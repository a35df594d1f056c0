"""Figures, each drawn from the tidy tables that it needs and no others.

Reads: {results}/tables/*.csv
Writes: {results}/figures/{figure}.png, .svg and .pdf, with captions for Snakemake's report.
"""

from rankwise.study.captions import CAPTIONS

# The caption's template reads it from here: a caption is no parameter, so an edit redraws nothing.
config["figure_captions"] = {
    name: f"**{caption.title}.** {caption.text}" for name, caption in CAPTIONS.items()
}


rule figure:
    """Draw one figure."""
    input:
        planned=planned("figures/{figure}.png"),
        read=reads("figures/{figure}.png"),
    output:
        png=report(
            "<results>/figures/{figure}.png",
            caption="figure_caption.rst",
            category=lambda wildcards: CAPTIONS[wildcards.figure].category,
            labels=lambda wildcards: {"figure": CAPTIONS[wildcards.figure].title},
        ),
        svg="<results>/figures/{figure}.svg",
        pdf="<results>/figures/{figure}.pdf",
    log:
        "<logs>/figure/{figure}.log",
    wildcard_constraints:
        figure="|".join(outputs.FIGURE_TABLES),
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=document_request("figures/{figure}.png"),
    shell:
        r"""
        exec python -m rankwise.execution.worker_client --documents figure \
            --request @results/.requests/{params.request}.json --output {output.png:q} >{log:q} 2>&1 </dev/null
        """
