"""A layer's tar in a file of zstd, as BuildKit exports it: half of what BuildKit would have to send as it is.

Source: RFC 8878; python-zstandard's documentation of `ZstdDecompressor.stream_reader`.
"""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from podkiln.canonical_layers.entries import Entry
    from podkiln.oci.spec import Digest

_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class CompressedLayer:
    """A layer that is a file of zstd. `size`: bytes of that file."""

    diff_id: Digest
    size: int
    path: Path

    def open(self, consumed_by: Sequence[Entry] | None = None) -> BinaryIO:  # noqa: ARG002 - it stays whole
        """Return the tar. Raises OSError."""
        return cast("BinaryIO", _Reader(self.path))

    def pieces(self) -> Iterator[tuple[bytes, int]]:
        """Yield the tar, and with each piece how many bytes of the file it was made of. Raises OSError."""
        with self.path.open("rb") as file:
            before = 0
            for piece in unpacked(file):
                after = file.tell()
                yield piece, after - before
                before = after

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


def unpacked(file: BinaryIO) -> Iterator[bytes]:
    """Yield what a file of zstd holds; of a damaged one what comes before the damage. Raises OSError."""
    reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)
    while True:
        try:
            piece = reader.read(_CHUNK)
        except zstandard.ZstdError:  # whoever reads it misses the rest
            return
        if not piece:
            return
        yield piece


class _Reader(io.RawIOBase):
    """The tar, to be read and sought in.

    Contents are read in nearly the order in which a differ writes them. Where one lies before what was read
    already, the whole tar is put into a file without a name: from the beginning again and again would take
    hours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("rb")
        self._pieces = Pieces(unpacked(self._file))
        self._plain: BinaryIO | None = None
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only an offset from the beginning is known")
        self._at = offset
        return offset

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, unless the tar ends before."""
        view = memoryview(buffer).cast("B")
        if self._plain is None and self._at < self._pieces.earliest:
            self._spill()
        if self._plain is None:
            data = self._pieces.read(self._at, len(view))
        else:
            self._plain.seek(self._at)
            data = self._plain.read(len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        if self._plain is not None:
            self._plain.close()
        super().close()

    def _spill(self) -> None:
        self._plain = cast("BinaryIO", tempfile.TemporaryFile(dir=self._path.parent))  # noqa: SIM115
        self._file.seek(0)
        self._plain.writelines(unpacked(self._file))


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
