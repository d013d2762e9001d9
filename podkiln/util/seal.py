"""A digest of what a file remembers, kept in it: a change by hand, by a merge or by a disk is noticed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def of(key: str, data: Mapping[str, Any]) -> str:
    """Return the digest (SHA-256, 64 hex digits) of what is remembered under a key."""
    text = json.dumps([key, data], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
