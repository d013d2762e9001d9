"""How large a picture would be when it is decoded, by its header: bombs are refused before they go off.

Sources: w3.org/TR/png-3 (11.2.1), ITU T.81 (B.2.2), developers.google.com/speed/webp/docs/riff_container and
RFC 6386 (9.1). A decoder takes the last header of several, so the largest is what counts here.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_CHUNKS: Final = 10_000
# Start of frame, all but DHT, JPG and DAC, which lie between.
_FRAMES: Final = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ALONE: Final = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
_SCAN, _END = 0xDA, 0xD9
_LONGEST_FILL: Final = 1_000  # bytes between two segments
_OTHER: Final = re.compile(rb"[^\xff]")


def dimensions(data: bytes, ending: str) -> tuple[int, int] | None:
    """Return width and height in pixels of a png, jpg or webp; None where its header cannot be read."""
    readers = {"png": _png, "jpg": _jpeg, "webp": _webp}
    try:
        sizes = list(readers[ending](data))
    except (struct.error, IndexError, ValueError):
        return None
    found = max(sizes, key=lambda size: size[0] * size[1], default=None)
    return found if found and min(found) > 0 else None


def _png(data: bytes) -> Iterator[tuple[int, int]]:
    at = 8
    for _ in range(_MOST_CHUNKS):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IHDR":
            width, height = struct.unpack_from(">II", data, at + 8)
            yield width, height
        if kind in (b"IDAT", b"IEND"):
            return
        at += 12 + length
    raise IndexError


def _jpeg(data: bytes) -> Iterator[tuple[int, int]]:
    at = 2
    for _ in range(_MOST_CHUNKS):
        # Megabytes may lie between two markers, or fill one up: bytes are not looked at one by one.
        at = data.index(b"\xff", at)
        found = _OTHER.search(data, at, at + _LONGEST_FILL)
        if not found:
            break
        at = found.start()
        marker = data[at]
        at += 1
        if marker in (_SCAN, _END):
            return
        if marker in _ALONE:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 3)
            yield width, height
        at += length
    raise IndexError


def _webp(data: bytes) -> Iterator[tuple[int, int]]:
    at = 12
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(data):
            return
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"VP8X":
            yield 1 + _three(data, at + 12), 1 + _three(data, at + 15)
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, at + 9)
            yield 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, at + 14)
            yield width & 0x3FFF, height & 0x3FFF
        at += 8 + length + length % 2
    raise IndexError


def _three(data: bytes, at: int) -> int:
    low, high = struct.unpack_from("<HB", data, at)
    return int(low | high << 16)
