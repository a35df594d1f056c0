"""Turn a study's results into one tidy table."""

from pathlib import Path

from rankwise.analysis import tables, tidy
from rankwise.analysis.partial_notes import notes
from rankwise.analysis.scores import mixed
from rankwise.core.keys import CURVE


def gather(request: dict, output: Path) -> None:
    """Write one table of a study. The table of examples, which is long, is Parquet only.

    Args:
        request: `reads`, the results' files; `variants`, the names of those methods that are a
            variant, by file; `table`; and `listed`, whether the table has a row for each item of a
            list in the results. `absent` names results that are not there.
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
        trials = tidy.trials(planned, _unfinished(request))
        tables.write(trials, stem, notes(request))
    elif table == "runs":
        runs = tidy.collect(planned)
        warnings = [f"Warning: {text}." for text in mixed(runs).values()]
        tables.write(runs, stem, [*notes(request, runs), *warnings])
    elif request["listed"]:
        tables.write(tidy.listed(planned, table), stem, notes(request))
    else:
        tables.write(tidy.collect(planned), stem, notes(request))


def _unfinished(request: dict) -> set[tuple]:
    """The curves of which a trial is absent, so that nothing is chosen yet."""
    absent = request.get("absent", {"cells": []})["cells"]
    return {tuple(one["cell"][name] for name in CURVE) for one in absent}
