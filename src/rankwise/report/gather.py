"""From a study's results to one tidy table, and from tidy tables to the paper's."""

from pathlib import Path

from rankwise.plan import Plan
from rankwise.report import collect, tables

ROOT = Path(__file__).resolve().parents[3]


def gather(request: dict, output: Path) -> None:
    """Write the table called `request["table"]`; that of examples, which is long, as Parquet only.

    Raises:
        ValueError: the configuration or a source changed since the workflow was planned.
        StaleResult: a result answers another request than the planned one.
    """
    plan, measurement = Plan(request["study"], ROOT), request["measurement"]
    if plan.digest(measurement) != request["planned"]:
        raise ValueError("config/ or a source changed since the workflow was planned; run snakemake again")
    planned = [(Path(plan.path(measurement, cell)), plan.request(measurement, cell)) for cell in plan.cells(measurement)]
    if request["table"] == "examples":
        return tables.write_parquet(collect.examples(planned), output)
    frame = collect.listed(planned, request["table"]) if request["listed"] else collect.collect(planned)
    return tables.write(frame, output.with_suffix(""))


def summarise(request: dict, output: Path) -> None:
    """Write the paper's table from the tidy ones beside it."""
    frames = [tables.read(output.with_name(f"{name}.csv")) for name in request["tables"]]
    runs, memory = (*frames, None)[:2]
    tables.write(tables.summary(runs, memory, dict(request["labels"])), output.with_suffix(""))
