"""A layer's tar in a file of zstd, as BuildKit exports it: half of what BuildKit would have to send as it is.

Source: RFC 8878; python-zstandard's documentation of `ZstdDecompressor.stream_reader`.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import zstandard

from podkiln.canonical_layers.offset_reader import OffsetReader, Pieces

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


class _Reader(OffsetReader):
    """The tar, to be read and sought in.

    Contents are read in nearly the order in which a differ writes them. Where one lies before what was read
    already, the whole tar is put into a file without a name: from the beginning again and again would take
    hours.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._file: BinaryIO = path.open("rb")
        self._pieces = Pieces(unpacked(self._file))
        self._plain: BinaryIO | None = None

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
