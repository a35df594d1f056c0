"""The digest of a lock file, which stands for the packages that a job runs with.

This module imports nothing of Rankwise: the image's build runs it alone, to label the image.
"""

import hashlib
import json
import re
from pathlib import Path


def lock_digest(path: Path) -> str:
    """16 hexadecimal digits of a lock file's pins; comments, order and layout do not count."""
    text = re.sub(r"#.*", "", path.read_text(encoding="utf-8"))
    lines = text.replace("\\\n", " ").splitlines()  # a pin continues on lines with its hashes
    pins = sorted(" ".join(line.split()) for line in lines if line.strip())
    return hashlib.sha256(json.dumps(pins).encode()).hexdigest()[:16]
