"""The image that BuildKit exports, its layers as tars, plain or in zstd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, cast

from podkiln.canonical_layers import entries
from podkiln.canonical_layers.compressed import CompressedLayer
from podkiln.canonical_layers.offset_reader import OffsetReader, Pieces
from podkiln.errors import IntegrityError
from podkiln.oci import spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from podkiln.canonical_layers.entries import Entry
    from podkiln.oci.layout import Layout
    from podkiln.oci.spec import Digest, ImageConfig


class DamagedExportError(IntegrityError):
    """What lies in a kept export is not what BuildKit wrote; it was removed, so that it is exported anew."""


_CHUNK: Final = 1 << 20
_MAX_HEADER: Final = 64 << 20  # bytes: only what is damaged has one so long


class ExportedLayer(Protocol):
    """A layer that can be read."""

    @property
    def diff_id(self) -> Digest:
        """The digest of its tar."""

    @property
    def size(self) -> int:
        """Bytes that it takes where it lies."""

    def open(self, consumed_by: Sequence[Entry] | None = None) -> BinaryIO:
        """Return the tar, to be read and sought in; the caller closes it.

        `consumed_by`: entries whose contents are read, once and in this order; what no more of them needs may
        be removed.
        """

    def pieces(self) -> Iterator[tuple[bytes, int]]:
        """Yield the tar, and how many bytes of `size` each piece stands for."""

    def remove(self) -> None:
        """Give its place on the disk back."""


@dataclass(frozen=True)
class PlainLayer:
    """A layer that is a file."""

    diff_id: Digest
    size: int
    path: Path

    def open(self, consumed_by: Sequence[Entry] | None = None) -> BinaryIO:  # noqa: ARG002 - it stays whole
        """Return the tar. Raises OSError."""
        return self.path.open("rb")

    def pieces(self) -> Iterator[tuple[bytes, int]]:
        """Yield the tar. Raises OSError."""
        with self.path.open("rb") as tar:
            while piece := tar.read(_CHUNK):
                yield piece, len(piece)

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


_KINDS: Final[dict[str, type[PlainLayer | CompressedLayer]]] = {
    spec.LAYER: PlainLayer,
    spec.LAYER_ZSTD: CompressedLayer,
}


@dataclass(frozen=True)
class ExportedImage:
    """Its config, and its layers from the lowest on."""

    config: ImageConfig
    layers: Sequence[ExportedLayer]

    @classmethod
    def of(cls, exported: Layout) -> ExportedImage:
        """Return the image of a folder. Raises IntegrityError."""
        layers: list[ExportedLayer] = []
        for each, diff_id in zip(exported.manifest.layers, exported.config.diff_ids, strict=True):
            kind = _KINDS.get(each.media_type)
            if kind is None:
                raise IntegrityError(
                    f"The build exported a layer as {each.media_type}, neither as a plain tar nor in zstd."
                )
            layers.append(kind(diff_id, each.size, exported.blob_path(each.digest)))
        return cls(exported.config, tuple(layers))


def read(
    layer: ExportedLayer,
    epoch: int,
    until: Callable[[Iterable[tuple[bytes, int]]], Iterable[tuple[bytes, int]]],
) -> list[Entry]:
    """Return the entries of a layer, all of which is compared with its digest.

    A kept export lies where anybody may change it; a damaged layer is removed, so that it is exported anew.
    Raises DamagedExportError, IntegrityError, OSError. `until` passes pieces on until the work is given up.
    """
    tar = _Hashed(until(layer.pieces()))
    try:
        found = entries.read(cast("BinaryIO", tar), f"Layer {spec.short(layer.diff_id)} of the build", epoch)
    except IntegrityError:
        _compare(tar, layer)  # no reading of what is not the layer says anything of it
        raise
    _compare(tar, layer)
    return found


def _compare(tar: _Hashed, layer: ExportedLayer) -> None:
    """Read a tar to its end and compare its digest. Raises DamagedExportError, OSError."""
    if tar.digest() != layer.diff_id:
        raise damaged(layer)


def damaged(layer: ExportedLayer) -> DamagedExportError:
    """Remove a layer that is not what BuildKit wrote, and return what there is to say."""
    layer.remove()
    return DamagedExportError(
        f"The kept export of the build was damaged: its layer {spec.short(layer.diff_id)} was not "
        "what BuildKit wrote. It was removed.",
        hint="Build again: that layer is exported anew.",
    )


class _Hashed(OffsetReader):
    """A tar, read once from its beginning to its end, and hashed meanwhile: a disk is slower than both."""

    def __init__(self, pieces: Iterable[tuple[bytes, int]]) -> None:
        super().__init__()
        self._hash = spec.hasher(spec.digest_of(b""))
        self._source = self._hashing(pieces)
        self._pieces = Pieces(self._source)
        self._failed: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise ValueError(f"a header is {size} bytes long")
        data = self._pieces.read(self._at, size)
        self._at += len(data)
        return data

    def digest(self) -> str:
        """Return the digest of all of it, what was not read included. Raises OSError."""
        for _ in self._source:
            pass
        if self._failed:
            raise self._failed
        return f"sha256:{self._hash.hexdigest()}"

    def _hashing(self, pieces: Iterable[tuple[bytes, int]]) -> Iterator[bytes]:
        try:
            for piece, _ in pieces:
                self._hash.update(piece)
                yield piece
        except OSError as failed:  # of the disk; who reads a tar would take it for damage
            self._failed = failed
            raise
