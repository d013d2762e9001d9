"""Numbers and lengths in the headers of answers, read defensively: a malformed header counts as absent.

Sources: RFC 9110 (8.6 Content-Length, 14.4 Content-Range), distribution-spec v1.1 (Range of an upload,
OCI-Chunk-Min-Length and OCI-Chunk-Max-Length).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

_NUMBER: Final = re.compile(r"[0-9]{1,18}")  # ASCII only, and below 2**63
_RANGE_END: Final = re.compile(r"-([0-9]{1,18})$")
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
_USUAL_CHUNK: Final = 4 << 20  # bytes; GHCR takes no more in a ranged PATCH (oras-project/rust-oci-client 35)
_LEAST_CHUNK: Final = 64 << 10  # bytes; below it a blob would take more requests than anybody waits for


def number(text: str | None) -> int | None:
    """Return a count of bytes or seconds; None for signs, other digits, and more than 18 digits."""
    stripped = (text or "").strip(" \t")
    return int(stripped) if _NUMBER.fullmatch(stripped) else None


def range_end(text: str | None) -> int | None:
    """Return the last byte of a range such as `0-1023`."""
    found = _RANGE_END.search((text or "").strip(" \t")[-64:])
    return int(found[1]) if found else None


def content_range(text: str | None) -> tuple[int | None, int | None]:
    """Return where `bytes 5-9/10` begins and how long the whole is, as far as that is said."""
    found = _CONTENT_RANGE.fullmatch((text or "")[:128].strip(" \t"))
    return (int(found[1]), number(found[2])) if found else (None, None)


@dataclass(frozen=True)
class ChunkSizes:
    """What a registry said of chunks, in bytes, when an upload began (OCI-Chunk-Min-Length, -Max-Length)."""

    least: int = 0
    most: int | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Read the headers of an answer; values that are not numbers are ignored.

        So is a most that no upload in chunks could keep to: below the least, or so small that a blob would
        never end. It holds for chunks alone, and a blob may be sent in one piece instead.
        """
        least, most = (number(headers.get(f"oci-chunk-{which}-length")) for which in ("min", "max"))
        usable = most is not None and most >= max(least or 0, _LEAST_CHUNK)
        return cls(least or 0, most if usable else None)

    @property
    def usual(self) -> int:
        """The length of chunks, where chunks it must be."""
        wanted = max(self.least, _USUAL_CHUNK)
        return min(wanted, self.most) if self.most else wanted

    def smaller(self, refused: int) -> int | None:
        """Return the length to try after one that was too large; None when there is no smaller one."""
        length = max(refused // 2, self.least, _LEAST_CHUNK)
        return length if length < refused else None
