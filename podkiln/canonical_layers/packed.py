"""A layer's tar, compressed as it arrives, that can be sought in and is removed piece by piece as it is read.

In a folder: frames of FRAME bytes of the tar, each a file of zstd, numbered from 0. So a disk that holds an
image once, compressed, needs little more while it is written anew.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import zstandard

from podkiln.canonical_layers.entries import FILE
from podkiln.canonical_layers.offset_reader import OffsetReader
from podkiln.oci import spec
from podkiln.oci.spec import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from podkiln.canonical_layers.entries import Entry

FRAME: Final = 4 << 20
_CHUNK: Final = 1 << 20
_LEVEL: Final = 3  # of zstd: level 1 takes a third more of the disk for a fifth less of the time
_HELD: Final = 4  # frames in memory: entries are read in nearly the order in which they lie


@dataclass(frozen=True)
class PackedLayer:
    """A layer that is a folder of frames."""

    diff_id: Digest
    size: int
    folder: Path

    @classmethod
    def pack(cls, pieces: Iterable[bytes], folder: Path) -> PackedLayer:
        """Store a tar. Raises OSError."""
        folder.mkdir()
        hashed, held, size = spec.hasher(spec.digest_of(b"")), bytearray(), 0
        compressor = zstandard.ZstdCompressor(level=_LEVEL)
        for piece in pieces:
            hashed.update(piece)
            held += piece
            while len(held) >= FRAME:
                _frame(folder, size // FRAME).write_bytes(compressor.compress(held[:FRAME]))
                del held[:FRAME]
                size += FRAME
        if held:
            _frame(folder, size // FRAME).write_bytes(compressor.compress(held))
        return cls(Digest(f"sha256:{hashed.hexdigest()}"), size + len(held), folder)

    def open(self, consumed_by: Sequence[Entry] | None = None) -> BinaryIO:
        """Return the tar; with entries, frames go once the contents of all of these were read from them."""
        left = None if consumed_by is None else self._uses(consumed_by)
        return cast("BinaryIO", _Reader(self.folder, self.size, left))

    def pieces(self) -> Iterator[tuple[bytes, int]]:
        """Yield the tar. Raises OSError."""
        with self.open() as tar:
            while piece := tar.read(_CHUNK):
                yield piece, len(piece)

    def remove(self) -> None:
        """Remove what is left of it."""
        for path in self.folder.iterdir():
            path.unlink(missing_ok=True)

    def _uses(self, entries: Sequence[Entry]) -> list[int]:
        """Return how many bytes are to be read of each frame."""
        left = [0] * -(-self.size // FRAME)
        for entry in entries:
            at, end = entry.offset, entry.offset + (entry.size if entry.kind == FILE else 0)
            while at < end:
                part = min(end - at, FRAME - at % FRAME)
                left[at // FRAME] += part
                at += part
        return left


class _Reader(OffsetReader):
    """The tar of a folder of frames. `left`: bytes still to be read of each; None: nothing is removed."""

    def __init__(self, folder: Path, size: int, left: list[int] | None) -> None:
        super().__init__()
        self._folder, self._size, self._left = folder, size, left
        self._held: OrderedDict[int, bytes] = OrderedDict()
        for number, count in enumerate(left or ()):
            if not count:
                _frame(folder, number).unlink(missing_ok=True)

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, unless the tar ends before."""
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view) and self._at < self._size:
            number, start = divmod(self._at, FRAME)
            part = self._frame(number)[start : start + len(view) - done]
            view[done : done + len(part)] = part
            done += len(part)
            self._at += len(part)
            self._used(number, len(part))
        return done

    def _frame(self, number: int) -> bytes:
        if number in self._held:
            self._held.move_to_end(number)
            return self._held[number]
        data = _frame(self._folder, number).read_bytes()
        self._held[number] = zstandard.ZstdDecompressor().decompress(data, max_output_size=FRAME)
        while len(self._held) > _HELD:
            self._held.popitem(last=False)
        return self._held[number]

    def _used(self, number: int, count: int) -> None:
        if self._left is None:
            return
        self._left[number] -= count
        if self._left[number] <= 0:
            self._held.pop(number, None)
            _frame(self._folder, number).unlink(missing_ok=True)


def _frame(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}"
