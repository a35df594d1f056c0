"""Draw one figure from the tidy tables that it needs."""

import importlib
from pathlib import Path

from rankwise.report import style
from rankwise.report.tables import read


def draw(request: dict, output: Path) -> None:
    """Write `request["figure"]` as PNG and SVG; their metadata carry the digests of the runs in them."""
    folder = output.parents[1] / "tables"
    tables = {name: read(folder / f"{name}.csv") for name in request["tables"]}
    runs = [digest for frame in tables.values() if "request_digest" in frame for digest in frame["request_digest"]]
    figure = importlib.import_module(f"rankwise.report.{request['figure']}").draw(tables, dict(request["labels"]))
    style.save(figure, output, sorted(set(runs)))
