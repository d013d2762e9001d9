"""The tar of a weight layer: one byte sequence for the same files, today and after any upgrade.

Written here and not by `tarfile`, since these bytes are the layer's digest, which stands in locks. GNU
format, as its sizes need no second header from 8 GiB on. Owner and group are 0 and have no names, times are
0, files have mode 0644 and directories 0755; parent directories come first, sorted, each once; zeros fill
the last record. Whatever changes a byte of this raises PACKING.

Source: GNU tar manual, "Basic Tar Format" (https://www.gnu.org/software/tar/manual/html_node/Standard.html).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, TypeAlias

from podkiln.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

PACKING: Final = 1
"""Version of these rules; stands in the lock beside each layer's digest."""

_BLOCK: Final = 512
_RECORD: Final = 20 * _BLOCK  # tar's default blocking factor
_NAME: Final = 100  # bytes of the name field; longer names get a block of their own before the header
_OCTAL_LIMIT: Final = 8 << 30  # 11 octal digits: sizes from 8 GiB on are written in base 256
_FILE, _DIRECTORY, _LONG_NAME = b"0", b"5", b"L"
_LONG_LINK: Final = b"././@LongLink"


@dataclass(frozen=True)
class Entry:
    """A file in the tar: its path, relative and with slashes, and its size in bytes."""

    path: str
    size: int


Chunk: TypeAlias = bytes | memoryview
"""Some bytes on their way; a view is good until the next chunk is asked for: its memory is used again."""

Opener: TypeAlias = Callable[[Entry, int], Iterable[Chunk]]
"""Gives the bytes of a file from an offset on, in pieces of any length."""


@dataclass(frozen=True)
class Segment:
    """A stretch of the tar: `data` as it stands, or the content of `entry`."""

    start: int
    size: int
    data: bytes = b""
    entry: Entry | None = None


@dataclass(frozen=True)
class TarLayer:
    """The tar of some files, in their order; nothing but headers is held in memory."""

    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        _refuse_bad_paths(self.entries)

    @property
    def size(self) -> int:
        """Bytes of the whole tar."""
        last = self.segments[-1]
        return last.start + last.size

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """All of the tar, in order and without a gap."""
        found: list[Segment] = []
        end = 0

        def add(size: int, data: bytes = b"", entry: Entry | None = None) -> None:
            nonlocal end
            if size or entry:  # an empty file is one that somebody has to vouch for, too
                found.append(Segment(end, size, data, entry))
                end += size

        directories = b"".join(header(f"{path}/", 0, _DIRECTORY) for path in _parents(self.entries))
        add(len(directories), directories)
        for entry in self.entries:
            head = header(entry.path, entry.size)
            add(len(head), head)
            add(entry.size, entry=entry)
            padding = bytes(-entry.size % _BLOCK)
            add(len(padding), padding)
        trailer = 2 * _BLOCK + -(end + 2 * _BLOCK) % _RECORD
        add(trailer, bytes(trailer))
        return tuple(found)

    def chunks(self, opener: Opener, offset: int = 0) -> Generator[Chunk]:
        """Yield the tar from an offset on. Raises IntegrityError for a file of another size than listed."""
        for segment in self.segments:
            skip = max(0, offset - segment.start)
            opens = skip < segment.size or (segment.entry and skip == segment.size == 0)
            if not opens:
                continue
            if segment.entry:
                yield from _exactly(opener(segment.entry, skip), segment.size - skip, segment.entry)
            else:
                yield segment.data[skip:]


def header(path: str, size: int, kind: bytes = _FILE) -> bytes:
    """Return what stands before a file's content: its header, and before that its name if that is long."""
    name = path.encode()
    if len(name) <= _NAME:
        return _block(name, size, kind)
    content = name + b"\0"
    padding = bytes(-len(content) % _BLOCK)
    return _block(_LONG_LINK, len(content), _LONG_NAME) + content + padding + _block(name[:_NAME], size, kind)


def _block(name: bytes, size: int, kind: bytes) -> bytes:
    """Return one header block; its checksum is summed up with itself as blanks."""
    mode = b"0000755\0" if kind == _DIRECTORY else b"0000644\0"
    ids = b"0000000\0" * 2  # owner, group
    fields = (name.ljust(_NAME, b"\0"), mode, ids, _number(size), _number(0), b" " * 8, kind)
    magic = b"ustar  \0"  # GNU's: magic and version run together
    block = b"".join(fields).ljust(257, b"\0") + magic
    block = block.ljust(_BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _number(value: int) -> bytes:
    """Return a field of 12 bytes: octal digits, or in base 256 with the highest bit set ("Extensions")."""
    if value < _OCTAL_LIMIT:
        return b"%011o\0" % value
    return b"\x80" + value.to_bytes(11, "big")


def _parents(entries: Iterable[Entry]) -> list[str]:
    """Return all folders of some files; a folder sorts before what is in it."""
    found = {str(folder) for entry in entries for folder in PurePosixPath(entry.path).parents}
    return sorted(found - {"."}, key=str.encode)


def _refuse_bad_paths(entries: Sequence[Entry]) -> None:
    """Refuse what would not unpack to exactly these files."""
    for entry in entries:
        path = PurePosixPath(entry.path)
        if str(path) != entry.path or path.is_absolute() or ".." in path.parts or "\0" in entry.path:
            raise IntegrityError(f"{entry.path!r} is not a plain relative path, so no layer can hold it.")
        if entry.path == "." or any(part.startswith(".wh.") for part in path.parts):
            raise IntegrityError(f"{entry.path!r} would unpack as a whiteout or as nothing.")
    twice = [path for path, count in Counter(entry.path for entry in entries).items() if count > 1]
    if twice:
        raise IntegrityError(f"{twice[0]!r} is duplicated in one layer.")


def _exactly(chunks: Iterable[Chunk], size: int, entry: Entry) -> Iterator[Chunk]:
    """Pass on what must be `size` bytes; one byte more or less would shift all that follows."""
    left = size
    for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            break
        if chunk:
            yield chunk
    if left:
        problem = "more" if left < 0 else f"{left} fewer"
        raise IntegrityError(f"{entry.path} has {problem} bytes than the {entry.size} that are expected.")
