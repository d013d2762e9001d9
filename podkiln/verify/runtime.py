"""What is in the layers of a runtime: nothing that hides weights, which lie below it, or adds to them.

Source: OCI image-spec v1.1, layer.md (whiteouts).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import posixpath
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Final, cast

import zstandard

from podkiln import oci
from podkiln.bundle import ROOT
from podkiln.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from podkiln.oci import Descriptor, Digest

_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_BLOCK: Final = 1 << 20
_WEIGHTS: Final = PurePosixPath(ROOT)
_MOST_LINKS: Final = 40  # one after another, as Linux has it (path_resolution(7))


@dataclass(frozen=True)
class Entry:
    """An entry of a layer's tar: its name there, whether it is a folder, and what a symbolic link names."""

    name: str
    folder: bool
    target: str | None


@dataclass(frozen=True)
class Contents:
    """What was read of a layer: what is wrong with it by itself, and all that is in it."""

    layer: str
    findings: tuple[str, ...]
    entries: tuple[Entry, ...] = ()


def read(number: int, blob: Descriptor, diff_id: Digest, chunks: Iterable[bytes]) -> Contents:
    """Read one layer to its end.

    Args:
        number: Which one of the image it is, from 0.
        blob: Its descriptor.
        diff_id: What the config says of it: the digest of its uncompressed tar.
        chunks: Its bytes, which raise IntegrityError when they are not those of its digest.
    """
    name = f"Layer {number} ({oci.short(blob.digest)})"
    source = _Chunks(chunks)
    try:
        with _opened(blob, source) as uncompressed:
            hashed = _Hashed(uncompressed)
            entries = tuple(_entries(hashed))
            hashed.drain()
        source.drain()
    except IntegrityError as wrong:
        return Contents(name, (f"{name}: {wrong}",))
    except (tarfile.TarError, EOFError, OSError, zlib.error, zstandard.ZstdError) as damaged:
        return Contents(name, (f"{name} cannot be read: {damaged}.",))
    if hashed.digest == diff_id:
        return Contents(name, (), entries)
    return Contents(name, (f"{name} holds a tar of {hashed.digest}; the config says {diff_id}.",), entries)


def findings(layers: Iterable[Contents]) -> Iterator[str]:
    """Say what is wrong with the layers of a runtime, lowest first, and what in them hides weights."""
    links = Links()
    for layer in layers:
        for entry in layer.entries:
            place = links.unpack(entry)
            if hides_weights(place, folder=entry.folder):
                yield f"{layer.layer} holds {entry.name}: a runtime leaves /{ROOT} to the weights."
        yield from layer.findings


def hides_weights(path: str, *, folder: bool) -> bool:
    """Tell whether an entry of a layer adds to the weights below it, or hides them.

    Folders on the way to them are harmless; anything else in such a folder's place is not.
    """
    entry = PurePosixPath(_cleaned(path))
    if entry.name == _OPAQUE:
        return _on_the_way(entry.parent) or entry.is_relative_to(_WEIGHTS)
    if entry.name.startswith(_WHITEOUT):
        entry = entry.with_name(entry.name.removeprefix(_WHITEOUT) or "-")
        return _on_the_way(entry) or entry.is_relative_to(_WEIGHTS)
    if folder and _on_the_way(entry):
        return False
    return _on_the_way(entry) or entry.is_relative_to(_WEIGHTS)


class Links:
    """The symbolic links that the layers so far have made, through which later entries are unpacked."""

    def __init__(self) -> None:
        self._targets: dict[str, str] = {}

    def unpack(self, entry: Entry) -> str:
        """Return where an entry comes to lie; a link is remembered there, anything else takes its place."""
        place = self._followed(_cleaned(entry.name))
        if entry.target is None:
            self._targets.pop(place, None)
        else:
            self._targets[place] = entry.target
        return place

    def _followed(self, path: str) -> str:
        """Follow all links before the last name, inside the root as engines do."""
        for _ in range(_MOST_LINKS):
            end = self._first(path)
            if end is None:
                break
            folder, target = posixpath.dirname(path[:end]), self._targets[path[:end]]
            path = _cleaned(posixpath.join(folder, target) + path[end:])
        return path

    def _first(self, path: str) -> int | None:
        end = path.find("/")
        while end > 0 and path[:end] not in self._targets:
            end = path.find("/", end + 1)
        return end if end > 0 else None


def _cleaned(path: str) -> str:
    """Return an entry's name as engines clean it: below the root, whatever it says."""
    return posixpath.normpath("/" + path.lstrip("/"))[1:]


def _on_the_way(entry: PurePosixPath) -> bool:
    return _WEIGHTS.is_relative_to(entry)


def _entries(stream: _Hashed) -> Iterator[Entry]:
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", bufsize=_BLOCK) as tar:
        for member in tar:
            yield Entry(member.name, member.isdir(), member.linkname if member.issym() else None)


def _opened(blob: Descriptor, source: _Chunks) -> IO[bytes]:
    if blob.media_type.endswith("+zstd"):
        reader = zstandard.ZstdDecompressor().stream_reader(
            cast("IO[bytes]", source), read_across_frames=True
        )
        return cast("IO[bytes]", reader)
    if blob.media_type.endswith("gzip"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=source, mode="rb"))
    return cast("IO[bytes]", io.BufferedReader(source, _BLOCK))


class _Chunks(io.RawIOBase):
    """A stream of chunks as a file."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """It can only be read."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill a buffer with what has come."""
        view = memoryview(cast("bytearray", buffer)).cast("B")
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        piece, self._rest = self._rest[: len(view)], self._rest[len(view) :]
        view[: len(piece)] = piece
        return len(piece)

    def drain(self) -> None:
        """Take what is left, so that the digest of the whole is looked at."""
        for _ in self._chunks:
            pass


class _Hashed:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> Digest:
        """Digest of what was read so far."""
        return oci.Digest(f"sha256:{self._hash.hexdigest()}")

    def read(self, size: int = -1) -> bytes:
        """Read some bytes."""
        data = self._file.read(size)
        self._hash.update(data)
        return data

    def drain(self) -> None:
        """Read to the end."""
        while self.read(_BLOCK):
            pass
