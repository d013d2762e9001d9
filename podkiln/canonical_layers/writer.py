"""The canonical form of a layer: one sequence of bytes for the same files, whoever has built them.

Entries are sorted by the parts of their paths. A header holds what the entry is: type, mode, numeric owner,
time in whole seconds, and nothing of names of owners. It is a ustar header; a pax header stands before it for
what does not fit, and for attributes. Two blocks of zeros end the tar. zstd by the locked library, at LEVEL.
Whatever changes a byte of this raises VERSION.

Sources: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Extended Header"; RFC 8878; attributes as
star and Go's archive/tar record them (SCHILY.xattr).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

import zstandard

from podkiln.canonical_layers.entries import FILE, FOLDER, HARD_LINK, LINK
from podkiln.errors import IntegrityError
from podkiln.oci import spec
from podkiln.oci.spec import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from podkiln.canonical_layers.entries import Entry

VERSION: Final = 2
"""Version of these rules: it stands in the key of whatever is remembered of a layer."""
LEVEL: Final = 3  # of zstd: level 9 takes four times as long for 4 % less

_BLOCK: Final = 512
_NAME: Final = 100  # bytes of the fields name and linkname
_MAX_ID: Final = 0o7777777
_MAX_SIZE: Final = 8 << 30
_CHUNK: Final = 1 << 20


class ChangedError(IntegrityError):
    """A layer does not hold what was read of it before."""


@dataclass(frozen=True)
class WrittenLayer:
    """A layer as it is stored: descriptor of the compressed blob, and digest of the tar in it."""

    digest: Digest
    size: int
    diff_id: Digest

    @property
    def descriptor(self) -> spec.Descriptor:
        """What stands in a manifest."""
        return spec.Descriptor(spec.LAYER_ZSTD, self.digest, self.size)


def write(entries: Iterable[Entry], tar: BinaryIO, blob: Path) -> WrittenLayer:
    """Write a compressed layer of these entries, whose contents lie in `tar`, to the file `blob`.

    Raises ChangedError where `tar` does not have the contents that the entries tell of, and OSError.
    """
    plain, packed, size = hashlib.sha256(), hashlib.sha256(), 0
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=False, threads=0).compressobj()
    with blob.open("wb") as out:

        def store(data: bytes) -> None:
            nonlocal size
            if data:
                packed.update(data)
                out.write(data)
                size += len(data)

        for chunk in chunks(entries, tar):
            plain.update(chunk)
            store(compressor.compress(chunk))
        store(compressor.flush())
    return WrittenLayer(Digest(f"sha256:{packed.hexdigest()}"), size, Digest(f"sha256:{plain.hexdigest()}"))


def chunks(entries: Iterable[Entry], tar: BinaryIO) -> Iterator[bytes]:
    """Yield the canonical tar in pieces of about a MiB."""
    held = bytearray()
    for entry in entries:
        held += header(entry)
        for piece in _content(tar, entry) if entry.kind == FILE else ():
            held += piece
            if len(held) >= _CHUNK:
                yield bytes(held)
                held.clear()
        held += bytes(-entry.size % _BLOCK)
    yield bytes(held) + bytes(2 * _BLOCK)


def _content(source: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """Yield a file's content, which is hashed once more: it was read before, and may have changed since."""
    source.seek(entry.offset)
    left, hashed = entry.size, hashlib.sha256()
    while left:
        piece = source.read(min(_CHUNK, left))
        if not piece:
            raise ChangedError(f"The build's layer ends within {entry.path.decode(errors='replace')}.")
        left -= len(piece)
        hashed.update(piece)
        yield piece
    if hashed.digest() != entry.content:
        name = entry.path.decode(errors="replace")
        raise ChangedError(f"The build's layer changed while it was written anew: {name}.")


def header(entry: Entry) -> bytes:
    """Return what stands before a content: its header, and before that a pax header where one is needed."""
    name = entry.path + b"/" if entry.kind == FOLDER and entry.path else entry.path or b"./"
    target = entry.target if entry.kind in (HARD_LINK, LINK) else b""
    records = [
        *([(b"path", name)] if _needs_record(name) else []),
        *([(b"linkpath", target)] if _needs_record(target) else []),
        *([(b"size", b"%d" % entry.size)] if entry.size >= _MAX_SIZE else []),
        *([(b"uid", b"%d" % entry.owner)] if entry.owner > _MAX_ID else []),
        *([(b"gid", b"%d" % entry.group)] if entry.group > _MAX_ID else []),
        *((b"SCHILY.xattr." + key, value) for key, value in entry.attributes),
    ]
    block = _block(entry, _short(name), _short(target))
    if not records:
        return block
    text = b"".join(_record(key, value) for key, value in sorted(records))
    return _pax_block(len(text)) + text + bytes(-len(text) % _BLOCK) + block


def _needs_record(text: bytes) -> bool:
    return len(text) > _NAME or not text.isascii()


def _short(text: bytes) -> bytes:
    """Return what a reader without pax sees; Go wants ASCII there."""
    return text[:_NAME].decode("ascii", errors="replace").encode("ascii", errors="replace")


def _record(key: bytes, value: bytes) -> bytes:
    """Return a record, which begins with its length; that counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d" % length + rest


def _pax_block(size: int) -> bytes:
    return _fields(b"pax", (0o644, 0, 0, size, 0), b"x", b"", (0, 0))


def _block(entry: Entry, name: bytes, target: bytes) -> bytes:
    size = entry.size if entry.size < _MAX_SIZE else 0
    owner, group = (number if number <= _MAX_ID else 0 for number in (entry.owner, entry.group))
    return _fields(name, (entry.mode, owner, group, size, entry.time), entry.kind, target, entry.device)


def _fields(
    name: bytes, numbers: tuple[int, ...], kind: bytes, target: bytes, device: tuple[int, int]
) -> bytes:
    """Return a ustar header; `numbers` are mode, owner, group, size and time."""
    fields = (
        name.ljust(_NAME, b"\0"),
        b"%07o\0%07o\0%07o\0%011o\0%011o\0" % numbers,
        b" " * 8,  # the checksum is summed up with itself as blanks
        kind,
        target.ljust(_NAME, b"\0"),
        b"ustar\00000",
        bytes(32 + 32),  # names of owner and group: numbers alone say who it is
        b"%07o\0%07o\0" % device,
        bytes(155 + 12),  # the prefix of a name: long ones are pax records
    )
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
