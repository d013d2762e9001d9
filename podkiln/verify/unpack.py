"""A layer's blob to its uncompressed tar, in the one way that every engine takes.

Engines look at a blob's first bytes and not at its media type; gzip programs read on or stop after a first
member, and warn of or refuse what follows; zstd has frames to be skipped. So a compressed layer must be
exactly one gzip member or one zstd frame. Memory is bounded whatever the blob says: at most 1 MiB of output
at a time, a zstd window of at most 32 MiB, and no more output than a real layer has for its size.

Sources: RFC 1952 (gzip), RFC 8878 (zstd); containerd pkg/archive/compression, moby go-archive compression.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Final

import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PIECE: Final = 1 << 20
_GZIP_MAGIC: Final = b"\x1f\x8b\x08"
_GZIP_FLAGS: Final = (0, 8)  # none, or the name of a file; others are read by some programs and not by others
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_WINDOW: Final = 32 << 20  # bytes; encoders of images use 8 MiB and less
_ZSTD_BLOCK: Final = 128 << 10  # Block_Maximum_Size
_ZSTD_SIZES: Final = (0, 2, 4, 8)  # bytes of Frame_Content_Size, by its flag
_FREE_OUTPUT: Final = 32 << 20
_MOST_EXPANSION: Final = 100
"""More output than this many times the input is not a layer: those of a runtime expand 2 to 6 times."""
_DISGUISED: Final = re.compile(rb"BZh|\x1f\x8b|\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18|\xfd7zXZ")
"""What engines take for the first bytes of something compressed (a name in a tar can begin with some).

moby looks for all of these, containerd for gzip and zstd alone, so a tar that begins so is two things.
"""
_LONGEST_MARK: Final = 5


class UnclearError(Exception):
    """Some bytes that two engines could read differently; the message is a clause: "it has a sparse file"."""


class PackedError(UnclearError):
    """The same of a compression."""


class Reader:
    """Chunks as a stream that gives exactly what is asked for; nothing is held but the chunk at hand."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")
        self.at = 0

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield the next bytes as they lie; fewer only at the end of the stream."""
        while size:
            if not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    return
                self._rest = memoryview(chunk)
            piece, self._rest = self._rest[:size], self._rest[size:]
            self.at += len(piece)
            size -= len(piece)
            yield piece

    def read(self, size: int) -> bytes:
        """Return the next bytes; fewer only at the end of the stream."""
        return b"".join(self.pieces(size))

    def exactly(self, size: int, what: str) -> bytes:
        """Return the next bytes. Raises UnclearError where the stream ends before."""
        data = self.read(size)
        if len(data) < size:
            raise UnclearError(f"it ends within {what}, at byte {self.at}")
        return data

    def skip(self, size: int, what: str) -> None:
        """Pass over bytes. Raises UnclearError where the stream ends before."""
        end = self.at + size
        for _ in self.pieces(size):
            pass
        if self.at < end:
            raise UnclearError(f"it ends within {what}, at byte {self.at}")

    def remainder(self) -> Iterator[memoryview]:
        """Yield all that is left."""
        while piece := next(self.pieces(_PIECE), None):
            yield piece


def unpacked(media_type: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the tar in a blob, in pieces of at most 1 MiB. Raises UnclearError."""
    source = Reader(chunks)
    if media_type.endswith("+zstd"):
        output = _zstd(source)
    elif media_type.endswith("gzip"):
        output = _gzip(source)
    else:
        output = map(bytes, source.remainder())
    return _bounded(source, output)


def _bounded(source: Reader, output: Iterator[bytes]) -> Iterator[bytes]:
    done, head = 0, b""
    for piece in output:
        if len(head) < _LONGEST_MARK:  # a server decides into which pieces its answer is cut
            head += piece[:_LONGEST_MARK]
            if _DISGUISED.match(head):
                raise PackedError("its tar begins with the mark of something compressed")
        done += len(piece)
        if done > _FREE_OUTPUT + _MOST_EXPANSION * source.at:
            raise PackedError(
                f"it expands to more than {_MOST_EXPANSION} times its size ({done} bytes from {source.at})"
            )
        yield piece


def _gzip(source: Reader) -> Iterator[bytes]:
    head = source.exactly(4, "the gzip header")
    if head[:3] != _GZIP_MAGIC:
        raise PackedError("it is not compressed with gzip, as its media type says")
    if head[3] not in _GZIP_FLAGS:
        raise PackedError(f"its gzip header has the flags {head[3]:#x}")
    inflater = zlib.decompressobj(wbits=31)
    yield from _inflated(inflater, head)
    for piece in source.remainder():
        yield from _inflated(inflater, piece)
    if not inflater.eof:
        raise PackedError("its gzip stream ends before its end mark")


def _inflated(inflater: zlib._Decompress, data: bytes | memoryview) -> Iterator[bytes]:
    if inflater.eof:
        raise PackedError("something follows its gzip stream")
    while True:
        try:
            output = inflater.decompress(data, _PIECE)
        except zlib.error as wrong:
            raise PackedError(f"its gzip stream is damaged ({wrong})") from wrong
        if output:
            yield output
        if inflater.unused_data:
            raise PackedError("something follows its gzip stream")
        data = inflater.unconsumed_tail
        if inflater.eof or (not data and len(output) < _PIECE):
            return


def _zstd(source: Reader) -> Iterator[bytes]:
    """Hand one frame to the decoder a block at a time, so that no block gives more than 128 KiB."""
    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
    try:
        for piece in _zstd_pieces(source):
            if output := decoder.decompress(piece):
                yield output
        if not decoder.eof:
            raise PackedError("its zstd frame has no end")
    except zstandard.ZstdError as wrong:
        raise PackedError(f"its zstd frame is damaged ({wrong})") from wrong
    if source.read(1):
        raise PackedError("something follows its zstd frame")


def _zstd_window(header: bytes, *, single: bool) -> int:
    """Return the bytes that a decoder must keep (RFC 8878, section 3.1.1.1.2), from the header's rest."""
    if single:  # then it is the content's size, which is told less 256 where it has 2 bytes
        return int.from_bytes(header, "little") + (256 if len(header) == 2 else 0)  # noqa: PLR2004
    base = 1 << (10 + (header[0] >> 3))
    return base + base // 8 * (header[0] & 7)


def _zstd_pieces(source: Reader) -> Iterator[bytes]:
    """Yield a frame's header, each of its blocks, and its checksum (RFC 8878, section 3.1.1)."""
    head = source.exactly(5, "the zstd header")
    if head[:4] != _ZSTD_MAGIC:
        raise PackedError("it is not compressed with zstd, as its media type says")
    told = head[4]
    single, checksum = told >> 5 & 1, told >> 2 & 1
    if told & 0b11011:
        raise PackedError("its zstd header asks for a dictionary, or has reserved bits")
    size = _ZSTD_SIZES[told >> 6] or single
    rest = source.exactly(size + (1 - single), "the zstd header")
    window = _zstd_window(rest, single=bool(single))
    if window > _ZSTD_WINDOW:
        raise PackedError(
            f"its zstd frame needs a window of {window} bytes: too large, {_ZSTD_WINDOW} are read at most"
        )
    yield head + rest
    last = 0
    while not last:
        block = source.exactly(3, "a zstd block")
        number = int.from_bytes(block, "little")
        last, kind, size = number & 1, number >> 1 & 3, number >> 3
        if size > _ZSTD_BLOCK:
            raise PackedError(f"it has a zstd block of {size} bytes")
        yield block + source.exactly(1 if kind == 1 else size, "a zstd block")
    if checksum:
        yield source.exactly(4, "the zstd checksum")
