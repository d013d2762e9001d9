"""The image that BuildKit exports, its layers as plain tars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from podkiln.canonical_layers import entries
from podkiln.errors import IntegrityError
from podkiln.oci import spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from podkiln.canonical_layers.entries import Entry
    from podkiln.oci.layout import Layout
    from podkiln.oci.spec import Digest, ImageConfig

_CHUNK = 1 << 20


class ExportedLayer(Protocol):
    """A layer that can be read."""

    @property
    def diff_id(self) -> Digest:
        """The digest of its tar."""

    @property
    def size(self) -> int:
        """Bytes of its tar."""

    def open(self, consumed_by: Sequence[Entry] | None = None) -> BinaryIO:
        """Return the tar, to be read and sought in; the caller closes it.

        `consumed_by`: entries whose contents are read, once and in this order; what no more of them needs may
        be removed.
        """

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

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


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
            if each.media_type != spec.LAYER:
                raise IntegrityError(f"The build exported a layer as {each.media_type}, not as a plain tar.")
            layers.append(PlainLayer(diff_id, each.size, exported.blob_path(each.digest)))
        return cls(exported.config, tuple(layers))


def read(
    layer: ExportedLayer, epoch: int, until: Callable[[Iterable[bytes]], Iterable[bytes]]
) -> list[Entry]:
    """Return the entries of a layer, all of which is compared with its digest first.

    A kept export lies where anybody may change it; a damaged layer is removed, so that it is exported anew.
    Raises IntegrityError, OSError. `until` passes pieces on until the work is given up.
    """
    hashed = spec.hasher(layer.diff_id)
    with layer.open() as tar:
        for piece in until(_pieces(tar)):
            hashed.update(piece)
        if f"sha256:{hashed.hexdigest()}" != layer.diff_id:
            layer.remove()
            raise IntegrityError(
                f"The kept export of the build was damaged: its layer {spec.short(layer.diff_id)} was not "
                "what BuildKit wrote. It was removed.",
                hint="Build again: that layer is exported anew.",
            )
        tar.seek(0)
        return entries.read(tar, f"Layer {spec.short(layer.diff_id)} of the build", epoch)


def _pieces(tar: BinaryIO) -> Iterator[bytes]:
    while piece := tar.read(_CHUNK):
        yield piece
