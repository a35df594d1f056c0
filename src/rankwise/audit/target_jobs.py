"""Which planned results are behind a file of a study, or behind some rows of one. Standard library
only.
"""

from pathlib import Path

from rankwise.audit import lineage, table_rows
from rankwise.core import units
from rankwise.study import claims, jobs, outputs
from rankwise.study.jobs import PlannedJob
from rankwise.study.plan import Plan


def jobs_behind(
    plan: Plan, file: str, row: str | None = None, column: str | None = None
) -> list[PlannedJob]:
    """The jobs whose results a file is made from.

    Args:
        plan: The study.
        file: A file that the study can make, relative to the project.
        row: Rows of a table, as in `table_rows.rows`; None for the whole file.
        column: One column of these rows.

    Raises:
        ConfigError: the table has no such row or column.
    """
    if lineage.is_result(plan, file):
        return _jobs_of_result(plan, file)
    tables = lineage.tables(plan, file)
    if row is None:
        return _cell_jobs(plan, tables)
    labels = dict(outputs.labels(plan))
    # The file itself may be the table's Markdown or LaTeX.
    table_file = str(Path(file).with_suffix(".csv"))
    rows = table_rows.rows(plan.root / table_file, table_file, row, column, labels)
    claim_jobs = _jobs_of_claims(plan, rows)
    if claim_jobs is not None:
        return claim_jobs
    if column and len(tables) > 1:
        name = _table_of_column(plan, rows, column, list(tables))
        tables = {name: tables[name]}
    return [job for job in _cell_jobs(plan, tables) if _is_behind_a_row(job, rows, labels)]


def cell_names(job: PlannedJob) -> dict:
    """The job's cell as tables name it; of a prepared input, its kind and name."""
    return {job.kind: job.name} if job.prepares_input else job.cell.columns


def _jobs_of_result(plan: Plan, file: str) -> list[PlannedJob]:
    """The job of one result; of the choice of a search those of its trials."""
    known = jobs.result_jobs(plan)
    (asked,) = [job for job in known if job.path == file]
    if asked.kind != jobs.CHOICE:
        return [asked]
    return [job for job in known if job.path in asked.inputs]


def _cell_jobs(plan: Plan, tables: dict[str, str]) -> list[PlannedJob]:
    """The jobs of every measurement that the tables gather."""
    measurements = dict.fromkeys(tables.values())
    return [job for measurement in measurements for job in jobs.cell_jobs(plan, measurement)]


def _jobs_of_claims(plan: Plan, rows: list[table_rows.Row]) -> list[PlannedJob] | None:
    """The jobs that decide the claims which the rows are about; None if they are about none."""
    known = claims.expand(plan.library["claims"])
    named = [known[row["claim"]] for row in rows if row.get("claim") in known]
    if not named:
        return None
    return [job for claim in named for job in _deciding_jobs(plan, claim)]


def _deciding_jobs(plan: Plan, claim: dict) -> list[PlannedJob]:
    """The jobs that a claim is decided from.

    They are those of its cell, of the corrected cell, and of the cell it is compared with.
    """
    if "table" not in claim:  # nothing here can decide it
        return []
    cell = claim["cell"]
    corrected = {**cell, **claim.get("corrected_cell", {})}
    compared = {**cell, **claim.get("against", {}).get("cell", {})}
    tables = lineage.measurements_of(plan, [claim["table"]])
    deciding = []
    for job in _cell_jobs(plan, tables):
        names = job.cell.columns.items()
        if any(wanted.items() <= names for wanted in (cell, corrected, compared)):
            deciding.append(job)
    return deciding


def _table_of_column(plan: Plan, rows: list[table_rows.Row], column: str, tables: list[str]) -> str:
    """The gathered table that has the quantity of a column."""
    headers = {}
    for table in tables:
        headers[table], _ = table_rows.read(plan.root / plan.output(f"tables/{table}.csv"))
    # In the table of fronts, the column `amount` is of the quantity that the column `cost` names.
    quantity = rows[0]["cost"] if column == "amount" else column
    return units.of_column(quantity, headers)


def _is_behind_a_row(job: PlannedJob, rows: list[table_rows.Row], labels: dict[str, str]) -> bool:
    cell = job.cell.columns
    return any(_is_row_of(row, cell, labels) for row in rows)


def _is_row_of(row: table_rows.Row, cell: dict, labels: dict[str, str]) -> bool:
    """Whether a row is made from a cell: everything that the row names of a cell is the same."""
    for name in ("model", "dataset", "trial", "seed", "evaluation"):
        # A cell may lack the name: a profile has no seed, so it is behind the rows of all seeds.
        if row.get(name) and name in cell and row[name] != str(cell[name]):
            return False
    curves = _curves(row)
    if not curves:
        return True
    method, rank = cell["method"], str(cell["rank"])
    return (method, rank) in curves or (labels[method], rank) in curves


def _curves(row: table_rows.Row) -> list[tuple[str, str]]:
    """(method, rank) of each curve that a row is about; a comparison is about two."""
    curves = []
    for end in ("", "_a", "_b"):
        if row.get(f"method{end}"):
            # The rank is empty for a method without one, whose cells have rank 0.
            rank = float(row[f"rank{end}"] or 0)
            curves.append((row[f"method{end}"], f"{rank:.0f}"))
    return curves
