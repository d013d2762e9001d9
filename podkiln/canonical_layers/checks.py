"""Which kept layers were hashed, and when: a disk, or somebody, may change what lies there for days.

A file is remembered as it was hashed: by inode, size and time, for one boot of the machine and at most a day.
Whatever is older, or differs in any of them, is hashed again before it is used.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pod.util.file_lease import boot_id
from podkiln.util import atomic, seal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Told: TypeAlias = "Callable[[int, int], None]"
"""Told how far a file was read: bytes done, and in all."""
MAX_AGE: Final = 24 * 3600  # seconds
_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Checks:
    """The folder that remembers: a small file for each layer, named by its digest's digits."""

    folder: Path

    def holds(self, path: Path, *, again: bool = False, told: Told = lambda *_: None) -> bool:
        """Tell whether a file has the content that its name is the SHA-256 of. Raises OSError.

        `again`: read it whatever is remembered.
        """
        if not again and self._remembered(path):
            return True
        hashed, size, done = hashlib.sha256(), path.stat().st_size, 0
        with path.open("rb") as file:
            while piece := file.read(_CHUNK):
                hashed.update(piece)
                done += len(piece)
                told(done, size)
        if hashed.hexdigest() != path.name:
            return False
        self.remember(path)
        return True

    def remember(self, path: Path) -> None:
        """Remember that a file was hashed just now. Raises OSError."""
        data = {**_state(path), "boot": boot_id(), "at": time.time()}
        atomic.write_json(self.folder / path.name, {**data, "seal": seal.of(path.name, data)})

    def forget(self) -> None:
        """Forget all: each is hashed at its next use."""
        for each in self._all():
            each.unlink(missing_ok=True)

    def prune(self, blobs: Path) -> None:
        """Forget what no longer lies in a folder."""
        for each in self._all():
            if not (blobs / each.name).exists():
                each.unlink(missing_ok=True)

    def _all(self) -> list[Path]:
        """Return what may be removed: a folder here is nobody's, and tells nothing."""
        return [each for each in self.folder.glob("*") if each.is_symlink() or not each.is_dir()]

    def _remembered(self, path: Path) -> bool:
        place = self.folder / path.name
        try:
            if not place.is_file():  # a FIFO would be waited for
                return False
            told = json.loads(place.read_bytes())
            right = bool(told.pop("seal") == seal.of(path.name, told))
            age = time.time() - float(told.pop("at"))
            return right and told == {**_state(path), "boot": boot_id() or None} and 0 <= age < MAX_AGE
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False


def _state(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"inode": status.st_ino, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
