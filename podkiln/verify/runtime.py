"""What is in the layers of a runtime: nothing that hides weights, which lie below it, or adds to them.

Source: OCI image-spec v1.1, layer.md (whiteouts).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
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


def layer_findings(number: int, blob: Descriptor, diff_id: Digest, chunks: Iterable[bytes]) -> list[str]:
    """Read one layer to its end, and say what is wrong with it.

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
            findings = [f"{name} {finding}" for finding in _tar_findings(hashed)]
            hashed.drain()
        source.drain()
    except IntegrityError as wrong:
        return [f"{name}: {wrong}"]
    except (tarfile.TarError, EOFError, OSError, zlib.error, zstandard.ZstdError) as damaged:
        return [f"{name} cannot be read: {damaged}."]
    if hashed.digest != diff_id:
        findings.append(f"{name} holds a tar of {hashed.digest}; the config says {diff_id}.")
    return findings


def hides_weights(path: str, *, folder: bool) -> bool:
    """Tell whether an entry of a layer adds to the weights below it, or hides them.

    Folders on the way to them are harmless; anything else in such a folder's place is not.
    """
    entry = PurePosixPath("/", path).relative_to("/")
    if entry.name == _OPAQUE:
        return _on_the_way(entry.parent) or entry.is_relative_to(_WEIGHTS)
    if entry.name.startswith(_WHITEOUT):
        entry = entry.with_name(entry.name.removeprefix(_WHITEOUT) or "-")
        return _on_the_way(entry) or entry.is_relative_to(_WEIGHTS)
    if folder and _on_the_way(entry):
        return False
    return _on_the_way(entry) or entry.is_relative_to(_WEIGHTS)


def _on_the_way(entry: PurePosixPath) -> bool:
    return _WEIGHTS.is_relative_to(entry)


def _tar_findings(stream: _Hashed) -> Iterator[str]:
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", bufsize=_BLOCK) as tar:
        for member in tar:
            if hides_weights(member.name, folder=member.isdir()):
                yield f"holds {member.name}: a runtime leaves /{ROOT} to the weights."


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
