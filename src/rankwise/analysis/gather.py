"""From a study's results to one tidy table."""

from pathlib import Path

from rankwise.analysis import tables, tidy
from rankwise.analysis.scores import mixed
from rankwise.study.plan import Plan


def gather(request: dict, output: Path) -> None:
    """Write the table called `request["table"]`; that of examples, which is long, as Parquet only.

    Raises:
        ValueError: the configuration or a source changed since the workflow was planned.
        StaleResult: a result answers another request than the planned one.
    """
    plan, measurement = Plan(request["study"], Path.cwd()), request["measurement"]
    if plan.digest(measurement) != request["planned"]:
        raise ValueError(
            "config/ or a source changed since the workflow was planned; run snakemake again"
        )
    planned = [
        (Path(plan.path(measurement, cell)), plan.request(measurement, cell))
        for cell in plan.cells(measurement)
    ]
    if request["table"] == "examples":
        return tables.write_parquet(tidy.examples(planned), output)
    if request["table"] == "search":
        return tables.write(tidy.trials(planned), output.with_suffix(""))
    frame = tidy.listed(planned, request["table"]) if request["listed"] else tidy.collect(planned)
    warnings = mixed(frame).values() if request["table"] == "runs" else ()
    return tables.write(frame, output.with_suffix(""), [f"Warning: {text}." for text in warnings])
