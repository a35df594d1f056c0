"""Results that carry a digest of their own content, so that a changed byte is noticed.

The text of a result begins with two lines that no job gives:

    {
     "content_sha256": "SHA-256 of every byte behind this line",
     "request_digest": "16 digits of the request that the result answers",

The digest is of bytes, so planning can check thousands of results without parsing them. A file that
is edited, cut short, or has a flipped bit is refused by everything that reads results. The seal is
no signature: who writes a new one can write anything. The summary numbers of a run are therefore
computed again from its scores when tables are made (`analysis/recomputed.py`).

Standard library only: the Snakefile imports this module.
"""

import hashlib
import json
from pathlib import Path

from rankwise.core import provenance

CONTENT, REQUEST = "content_sha256", "request_digest"
_BEGIN = f'{{\n "{CONTENT}": "'.encode()
_END = b'",\n'
_DIGITS = 64
_BODY = len(_BEGIN) + _DIGITS + len(_END)  # where the sealed bytes begin
_REQUEST = f' "{REQUEST}": "'.encode()


class Damaged(ValueError):
    """A file is not as it was written; the message says which one and what is wrong."""


def text(content: dict) -> str:
    """The JSON of a result, with its seal.

    Args:
        content: The result, with its `request`.

    Raises:
        ValueError: It holds nan or infinity, which JSON cannot express.
    """
    written = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    digest = provenance.digest(content["request"])
    rest = written.removeprefix("{\n")
    body = f"{_REQUEST.decode()}{digest}{_END.decode()}{rest}\n"
    sha256 = hashlib.sha256(body.encode()).hexdigest()
    return f"{_BEGIN.decode()}{sha256}{_END.decode()}{body}"


def problem(data: bytes, digest: str | None = None) -> str | None:
    """The damage in the bytes of a result; None if they are as they were written.

    Args:
        data: All bytes of the file.
        digest: Of the request that it must answer; None if any will do.
    """
    recorded, body = data[len(_BEGIN) : _BODY - len(_END)], data[_BODY:]
    if not data.startswith(_BEGIN) or data[_BODY - len(_END) : _BODY] != _END:
        return f"it does not begin with its {CONTENT}, as results of this release do"
    found = hashlib.sha256(body).hexdigest()
    if found.encode() != recorded:
        return f"its content was changed: {CONTENT} is {found}, allowed: {_shown(recorded)}"
    answered = body[len(_REQUEST) : len(_REQUEST) + provenance.DIGEST_LENGTH].decode()
    if digest is not None and answered != digest:
        return f"it answers request {answered}, allowed: {digest}"
    return None


def content(data: bytes, file: Path) -> dict:
    """A result from its bytes, without the seal.

    Raises:
        Damaged: The bytes are not as they were written.
    """
    wrong = problem(data)
    if wrong:
        raise Damaged(f"{file}: {wrong}")
    found = json.loads(data)
    return {name: value for name, value in found.items() if name not in (CONTENT, REQUEST)}


def is_of_older_release(data: bytes) -> bool:
    """Whether bytes are a result without a seal, as older releases wrote it."""
    try:
        found = json.loads(data)
    except ValueError:
        return False
    return isinstance(found, dict) and "request" in found and CONTENT not in found


def read(file: Path) -> dict:
    """Read a result as it was written, without the seal.

    Raises:
        Damaged: The file is not as it was written.
        OSError: It is not there or cannot be read.
    """
    return content(file.read_bytes(), file)


def _shown(recorded: bytes) -> str:
    return recorded.decode("ascii", errors="replace")
