"""What an answer says of the file that it carries: which bytes, how many, from where on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pod.net.http import RefusedError
from pod.util import bounded_json
from pod.util.stated import is_sha256

if TYPE_CHECKING:
    from pod.net.http import Answer

PARTIAL, UNSATISFIABLE = 206, 416
_RANGE = re.compile(r"bytes ([0-9]+)-[0-9]+/([0-9]+|\*)")  # RFC 9110, 14.4


class ReplacedError(RefusedError):
    """The source has another file than the one that is wanted: the bytes received so far cannot be used."""


def compare(found: str, listed: str) -> None:
    """Compare size and hash of the response with the expected ones. Raises ReplacedError."""
    if found != listed:
        raise ReplacedError(
            f"has {found} at its source, but {listed} is listed: it was replaced there; "
            "correct its revision or what is listed"
        )


def identity(answer: Answer) -> str:
    """Return what identifies the bytes: the hub's hash on its redirect, else ETag or Last-Modified."""
    if linked := answer.first("X-Linked-Etag"):
        return f"linked:{linked}"
    return str(answer.headers["ETag"] or answer.headers["Last-Modified"] or "")


def linked_sha256(answer: Answer) -> str | None:
    """Return the sha256 that Hugging Face states on its redirect; None where it states none."""
    linked = (answer.first("X-Linked-Etag") or "").strip('"')
    return linked if is_sha256(linked) else None


def size(answer: Answer) -> int | None:
    """Return the bytes of the whole file, or None when the answer does not say."""
    if answer.status == PARTIAL:
        match = _RANGE.fullmatch(answer.headers["Content-Range"] or "")
        return bounded_json.number(match[2]) if match else None
    return bounded_json.number(answer.headers["Content-Length"])


def start(answer: Answer) -> int | None:
    """Return the offset of the first byte, or None when the answer does not say."""
    match = _RANGE.fullmatch(answer.headers["Content-Range"] or "")
    return bounded_json.number(match[1]) if match else None
