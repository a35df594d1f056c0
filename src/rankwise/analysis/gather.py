"""Turn a study's results into one tidy table."""

from pathlib import Path

from rankwise.analysis import tables, tidy
from rankwise.analysis.scores import mixed
from rankwise.study.plan import Plan


def gather(request: dict, output: Path) -> None:
    """Write one table of a study. The table of examples, which is long, is Parquet only.

    Args:
        request: `study`, the study's configuration; `measurement`, whose results are read;
            `planned`, the plan's digest of that measurement; `table`; and `listed`, whether the
            table has a row for each item of a list in the results.
        output: Path of the table.

    Raises:
        ValueError: The configuration or a source file changed since the workflow was planned.
        StaleResult: A result answers another request than the planned one.
    """
    plan = Plan(request["study"], Path.cwd())
    measurement, table = request["measurement"], request["table"]
    if plan.digest(measurement) != request["planned"]:
        raise ValueError(
            "config/ or a source changed since the workflow was planned; run snakemake again"
        )
    planned = [
        tidy.Planned(
            Path(plan.path(measurement, cell)), plan.request(measurement, cell), cell.method_name
        )
        for cell in plan.cells(measurement)
    ]
    stem = output.with_suffix("")
    if table == "examples":
        tables.write_parquet(tidy.examples(planned), output)
    elif table == "search":
        tables.write(tidy.trials(planned), stem)
    elif table == "runs":
        runs = tidy.collect(planned)
        tables.write(runs, stem, [f"Warning: {text}." for text in mixed(runs).values()])
    elif request["listed"]:
        tables.write(tidy.listed(planned, table), stem)
    else:
        tables.write(tidy.collect(planned), stem)
