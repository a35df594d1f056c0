"""Data inside of the page: JSON, compressed with gzip, as text.

A browser unpacks it when it is needed (`unpack` in page.js). A study of thousands of runs has tens
of megabytes of JSON, which compress to a twentieth.
"""

import base64
import gzip
import json


def packed(value: object) -> str:
    """The value as base64 of gzip of JSON; the same value gives the same text.

    Raises:
        ValueError: The value holds nan or infinity, which JSON cannot express.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def columnar(rows: list[dict]) -> dict[str, list]:
    """Rows as column names, in the order of first appearance, and lists of values."""
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(row)
    return {"columns": list(names), "rows": [[row.get(name) for name in names] for row in rows]}
