"""The sha256 of a weight layer and of each file in it, computed in one pass.

In a tar each file begins at a multiple of 512 bytes, so file and layer are made of the same blocks of 64.
Where podkiln.weights.sha256_native is available, each block is looked at once for both; elsewhere hashlib
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

    Each byte of a file goes to `content` when it is read and to `passed` when it is sent on, which may be two
    threads. The other methods may only be called while no file is being read.
    """

    def frame(self, data: Chunk) -> None:
        """Hash bytes between files (headers, padding) into the layer only."""

    def begin(self) -> None:
        """Start a file."""

    def content(self, data: Chunk) -> None:
        """Hash bytes of the current file when they are read."""

    def passed(self, data: Chunk) -> None:
        """Hash the same bytes when they are sent on: into the layer; a no-op where `content` did both."""

    def file(self) -> str:
        """Return the sha256 of the file that began last, before anything is framed after it."""

    def layer(self) -> str:
        """Return the sha256 of all that was taken."""


def hashes() -> LayerHasher:
    """Return a fresh hasher, of the fastest kind that this machine has."""
    with _choosing:  # one waits while another has sha256_native.c translated
        library = native.library() if native else None
    return native.NativeHasher(library) if library else HashlibHasher()


class HashlibHasher:
    """`LayerHasher` by hashlib: the reading thread hashes the file, the sending thread the layer."""

    def __init__(self) -> None:
        self._layer = hashlib.sha256()
        self._file = hashlib.sha256()

    def frame(self, data: Chunk) -> None:
        """Hash bytes into the layer only."""
        self._layer.update(data)

    def begin(self) -> None:
        """Start a file."""
        self._file = hashlib.sha256()

    def content(self, data: Chunk) -> None:
        """Hash bytes into the file."""
        self._file.update(data)

    def passed(self, data: Chunk) -> None:
        """Hash bytes into the layer."""
        self._layer.update(data)

    def file(self) -> str:
        """Return the sha256 of the file."""
        return self._file.hexdigest()

    def layer(self) -> str:
        """Return the sha256 of the layer."""
        return self._layer.hexdigest()
