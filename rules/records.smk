"""Texts from the records: numbers for use in a paper, and the checklist and appendix that go with it."""


rule numbers:
    """Write the summary's numbers as JSON and as LaTeX macros."""
    input:
        lambda wildcards: texts.numbers_request(PLAN)["tables"],
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
        request=lambda wildcards: dumps(texts.numbers_request(PLAN)),
    shell:
        "python workflow_scripts/paper_numbers.py --request {params.request:q} --output {output.json:q} > {log:q} 2>&1"


rule artifact:
    """Write results/artifact.md: a reproducibility checklist and an artifact appendix."""
    input:
        results=lambda wildcards: texts.results(PLAN),
        tables=lambda wildcards: texts.findings(PLAN),
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
        request=lambda wildcards: dumps(texts.artifact_request(PLAN)),
    shell:
        "python workflow_scripts/artifact.py --request {params.request:q} --output {output:q} > {log:q} 2>&1"
