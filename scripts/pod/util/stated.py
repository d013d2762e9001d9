"""What others state of a file, before it is believed: a person, a hub, or a record on a volume."""

from __future__ import annotations

import re

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST = 1 << 62


def is_sha256(text: str) -> bool:
    """Tell whether it is a sha256 as we write it: 64 hex digits in lower case."""
    return _SHA256.fullmatch(text) is not None


def is_count(value: object) -> bool:
    """Tell whether it is a whole number that may be a size in bytes, or a hub's id: below 2**62, no bool."""
    return type(value) is int and 0 <= value < _LARGEST
