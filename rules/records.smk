"""Texts for a paper: numbers as macros, a reproducibility checklist and an artifact appendix.

Reads: tables of the paper, and the results themselves for the records in them.
Writes: {results}/numbers.json, {results}/numbers.tex, {results}/artifact.md
"""


rule numbers:
    """Write the summary's numbers as JSON and as LaTeX macros."""
    input:
        planned=planned(outputs.NUMBERS[0]),
        read=reads(outputs.NUMBERS[0]),
    output:
        json="<results>/numbers.json",
        tex="<results>/numbers.tex",
    log:
        "<logs>/numbers.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=document_request(outputs.NUMBERS[0]),
    shell:
        r"""
        exec python -m rankwise.execution.worker_client --documents paper_numbers \
            --request @results/.requests/{params.request}.json --output {output.json:q} >{log:q} 2>&1 </dev/null
        """


rule artifact:
    """Write the checklist and the appendix."""
    input:
        planned=planned(outputs.ARTIFACT),
        read=reads(outputs.ARTIFACT),
    output:
        "<results>/artifact.md",
    log:
        "<logs>/artifact.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=document_request(outputs.ARTIFACT),
    shell:
        r"""
        exec python -m rankwise.execution.worker_client --documents artifact \
            --request @results/.requests/{params.request}.json --output {output:q} >{log:q} 2>&1 </dev/null
        """
