"""Layers that are read while BuildKit still exports others, so that what they hold is known when it is done.

BuildKit's client writes a blob beside its place, and moves it there when it is whole (containerd's local
content store). Which of them are layers is not known before the last one, the manifest: what cannot be read
as one is left.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from podkiln.canonical_layers import exported
from podkiln.canonical_layers.compressed import CompressedLayer
from podkiln.errors import IntegrityError
from podkiln.oci import spec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from podkiln.canonical_layers.entries import Entry
    from podkiln.oci.spec import Digest

_EVERY: Final = 0.2  # seconds
_LEAST: Final = 4 << 20  # bytes: smaller ones are read at once when they are needed
_UNKNOWN: Final = spec.digest_of(b"")


@dataclass(frozen=True)
class EarlyReader:
    """Reads what comes into a folder of blobs; `found`: what each layer holds, by the digest of its tar."""

    blobs: Path
    epoch: int
    found: dict[Digest, list[Entry]] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Read until the block ends; what is half read then is given up."""
        there = self._names()
        self._over.clear()
        reader = threading.Thread(target=self._read_all, args=(there,), name="early-reader", daemon=True)
        reader.start()
        try:
            yield
        finally:
            self._over.set()
            reader.join()

    def _names(self) -> set[str]:
        with contextlib.suppress(OSError):
            return {path.name for path in self.blobs.iterdir()}
        return set()

    def _read_all(self, seen: set[str]) -> None:
        while not self._over.wait(_EVERY):
            for name in sorted(self._names() - seen):
                seen.add(name)
                with contextlib.suppress(OSError, IntegrityError, _OverError):
                    self._read(self.blobs / name)

    def _read(self, path: Path) -> None:
        size = path.stat().st_size
        if size >= _LEAST:
            layer = CompressedLayer(_UNKNOWN, size, path)
            digest, entries = exported.scan(layer, self._until_over, self.epoch)
            self.found[digest] = entries

    def _until_over(self, pieces: Iterable[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
        for piece in pieces:
            if self._over.is_set():
                raise _OverError
            yield piece


class _OverError(Exception):
    """BuildKit is done."""
