"""Turn a study's results into one tidy table."""

from pathlib import Path

from rankwise.analysis import tables, tidy
from rankwise.analysis.scores import mixed


def gather(request: dict, output: Path) -> None:
    """Write one table of a study. The table of examples, which is long, is Parquet only.

    Args:
        request: `reads`, the results' files; `variants`, the names of those methods that are a
            variant, by file; `table`; and `listed`, whether the table has a row for each item of a
            list in the results.
        output: Path of the table.

    Raises:
        StoreError: A result answers another request than the one that its folder names.
    """
    table, variants = request["table"], request["variants"]
    planned = [tidy.Planned(Path(path), variants.get(path)) for path in request["reads"]]
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
