"""Tables of the paper, from the tidy ones: what each curve reaches and costs, and which differences are shown."""


rule evidence:
    """Each curve's metric with its interval, and every pair of curves compared."""
    input:
        "results/tables/runs.csv",
        outputs.EXAMPLES,
    output:
        estimates=multiext("results/tables/estimates", ".csv", ".md", ".tex", ".parquet"),
        comparisons=multiext("results/tables/comparisons", ".csv", ".md", ".tex", ".parquet"),
    log:
        "logs/evidence.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=dumps(outputs.evidence_request(PLAN)),
    shell:
        "python workflow_scripts/evidence.py --request {params.request:q} --output {output.estimates[0]:q} > {log:q} 2>&1"


rule summary:
    """The paper's table: mean and interval, best, tied and undecided, with parameters, memory and time."""
    input:
        [f"results/tables/{name}.csv" for name in outputs.made_from(PLAN, "summary")],
    output:
        csv="results/tables/summary.csv",
        md="results/tables/summary.md",
        tex="results/tables/summary.tex",
        parquet="results/tables/summary.parquet",
    log:
        "logs/summary.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=dumps(outputs.summary_request(PLAN)),
    shell:
        "python workflow_scripts/summary.py --request {params.request:q} --output {output.csv:q} > {log:q} 2>&1"


rule views:
    """Fronts of quality against each cost, and the best within each budget."""
    input:
        [f"results/tables/{name}.csv" for name in outputs.made_from(PLAN, "views")],
        outputs.EXAMPLES,
    output:
        fronts=multiext("results/tables/fronts", ".csv", ".md", ".tex", ".parquet"),
        views=multiext("results/tables/views", ".csv", ".md", ".tex", ".parquet"),
    log:
        "logs/views.log",
    group:
        "report"
    conda:
        "../envs/environment.yaml"
    resources:
        runtime=10,
    params:
        request=dumps(outputs.views_request(PLAN)),
    shell:
        "python workflow_scripts/views.py --request {params.request:q} --output {output.views[0]:q} > {log:q} 2>&1"
