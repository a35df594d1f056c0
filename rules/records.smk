"""Texts for a paper: numbers as macros, a reproducibility checklist and an artifact appendix.

Reads: tables of the paper, and the results themselves for the records in them.
Writes: results/numbers.json, results/numbers.tex, results/artifact.md
"""


rule numbers:
    """Write the summary's numbers as JSON and as LaTeX macros."""
    input:
        lambda wildcards: text_outputs.numbers_request(PLAN)["tables"],
    output:
        json=outputs.NUMBERS[0],
        tex=outputs.NUMBERS[1],
    log:
        "logs/numbers.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=lambda wildcards: requests.write(text_outputs.numbers_request(PLAN)),
    shell:
        r"""
        exec python -m rankwise.execution.script paper_numbers \
            --request @results/.requests/{params.request}.json --output {output.json:q} >{log:q} 2>&1
        """


rule artifact:
    """Write the checklist and the appendix."""
    input:
        results=lambda wildcards: text_outputs.results(PLAN),
        tables=lambda wildcards: text_outputs.findings(PLAN),
    output:
        outputs.ARTIFACT,
    log:
        "logs/artifact.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=lambda wildcards: requests.write(text_outputs.artifact_request(PLAN)),
    shell:
        r"""
        exec python -m rankwise.execution.script artifact \
            --request @results/.requests/{params.request}.json --output {output:q} >{log:q} 2>&1
        """
