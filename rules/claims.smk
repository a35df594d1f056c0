"""Published numbers, and a verdict on each.

Reads: the tables that decide claims, as far as the study has them.
Writes: {results}/claims.csv (and .md, .tex, .parquet) and results/claims.png (and .svg, .pdf).
"""


rule claims:
    """Compare every published number with the table that decides it."""
    input:
        planned=planned("claims.csv"),
        read=reads("claims.csv"),
    output:
        csv="<results>/claims.csv",
        md="<results>/claims.md",
        tex="<results>/claims.tex",
        parquet="<results>/claims.parquet",
    log:
        "<logs>/claims.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=document_request("claims.csv"),
    shell:
        r"""
        exec python -m rankwise.execution.worker_client --documents claims \
            --request @results/.requests/{params.request}.json --output {output.csv:q} >{log:q} 2>&1 </dev/null
        """


rule claims_figure:
    """Draw how far our numbers are from the published ones."""
    input:
        planned=planned("claims.png"),
        read=reads("claims.png"),
    output:
        png=report("<results>/claims.png", caption="figure_caption.rst", category="Claims"),
        svg="<results>/claims.svg",
        pdf="<results>/claims.pdf",
    log:
        "<logs>/claims_figure.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=document_request("claims.png"),
    shell:
        r"""
        exec python -m rankwise.execution.worker_client --documents claims_figure \
            --request @results/.requests/{params.request}.json --output {output.png:q} >{log:q} 2>&1 </dev/null
        """
