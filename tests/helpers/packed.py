"""Read the data that a page holds."""

import base64
import gzip
import json
import re


def unpacked(page: str, name: str) -> dict:
    """The value of one of the page's elements of data, by its id."""
    text = re.search(rf'<script type="text/plain" id="{name}">(.*?)</script>', page, re.DOTALL)[1]
    return json.loads(gzip.decompress(base64.b64decode(text)))
