"""The sha256 of a weight layer and of the file in it that passes.

In a tar each file begins at a multiple of 512 bytes, so file and layer are made of the same blocks of 64.
Where podkiln.weights.sha256_native can be had, each block is looked at once for both; elsewhere hashlib
hashes twice.
"""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Final, Protocol

try:
    from podkiln.weights import sha256_native as native
except ImportError:  # a Python without ctypes
    native = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from podkiln.oci.tar_layer import Chunk

_choosing: Final = threading.Lock()


class LayerHasher(Protocol):
    """The sha256 of a layer, and of one file in it after the other.

    Each byte of a file is told twice, and by two threads if need be: as it is read, to `content`, and as it
    is passed on, to `passed`. All else is called when nobody reads.
    """

    def frame(self, data: Chunk) -> None:
        """Take what stands around files: it is the layer's alone."""

    def begin(self) -> None:
        """Let a file begin."""

    def content(self, data: Chunk) -> None:
        """Take some of the file that began last."""

    def passed(self, data: Chunk) -> None:
        """Take the same once more."""

    def file(self) -> str:
        """Return the sha256 of the file that began last, before anything is framed after it."""

    def layer(self) -> str:
        """Return the sha256 of all that was taken."""


def hashes() -> LayerHasher:
    """Return hashes of nothing yet, of the fastest kind that this machine has."""
    with _choosing:  # one waits while another has native.c translated
        library = native.library() if native else None
    return native.NativeHasher(library) if library else HashlibHasher()


class HashlibHasher:
    """`LayerHasher` by hashlib: one by who reads, the other by who passes on."""

    def __init__(self) -> None:
        self._layer = hashlib.sha256()
        self._file = hashlib.sha256()

    def frame(self, data: Chunk) -> None:
        """Take what is the layer's alone."""
        self._layer.update(data)

    def begin(self) -> None:
        """Let a file begin."""
        self._file = hashlib.sha256()

    def content(self, data: Chunk) -> None:
        """Take some of the file, for itself."""
        self._file.update(data)

    def passed(self, data: Chunk) -> None:
        """Take it for the layer."""
        self._layer.update(data)

    def file(self) -> str:
        """Return the sha256 of the file."""
        return self._file.hexdigest()

    def layer(self) -> str:
        """Return the sha256 of the layer."""
        return self._layer.hexdigest()
