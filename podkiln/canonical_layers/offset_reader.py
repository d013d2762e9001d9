"""What the readers of a layer's tar share: a place to read at, and pieces that come one after another."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class OffsetReader(io.RawIOBase):
    """A tar that is read from an offset, `_at`, which reading moves on."""

    def __init__(self) -> None:
        super().__init__()
        self._at = 0

    def readable(self) -> bool:
        """It is read."""
        return True

    def seekable(self) -> bool:
        """Any offset can be read from."""
        return True

    def tell(self) -> int:
        """Return the offset."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset from the beginning. Raises io.UnsupportedOperation for any other."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only an offset from the beginning is known")
        self._at = offset
        return offset


class Pieces:
    """Pieces of a tar as they come, read by offset: forwards, and backwards within the last two."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._left = pieces
        self._before, self._piece = b"", b""
        self._end = 0  # offset behind _piece

    @property
    def earliest(self) -> int:
        """The lowest offset that can still be read."""
        return self._end - len(self._piece) - len(self._before)

    def read(self, at: int, count: int) -> bytes:
        """Return bytes from an offset on; fewer where the tar ends. Raises ValueError behind `earliest`."""
        if at < self.earliest:
            raise ValueError("what stands there was read already")
        while self._end <= at and self._next():
            pass
        found = bytearray()
        while len(found) < count and (at < self._end or self._next()):
            start = self._end - len(self._piece)
            held, first = (self._piece, start) if at >= start else (self._before, self.earliest)
            part = held[at - first : at - first + count - len(found)]
            found += part
            at += len(part)
        return bytes(found)

    def _next(self) -> bool:
        piece = next(self._left, b"")
        if piece:
            self._before, self._piece = self._piece, piece
            self._end += len(piece)
        return bool(piece)
