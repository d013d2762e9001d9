"""What podkiln keeps in its cache folder, by kind: how large it is, and how it is removed.

BuildKit's own cache is not podkiln's: `docker buildx du` and `docker buildx prune` are for that.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from podkiln.lock import runtimes
from podkiln.util import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK: Final = 512  # bytes: the unit of st_blocks (POSIX.1-2017 sys/stat.h leaves it open; Linux has this)


@dataclass(frozen=True)
class Kind:
    """One folder or file. `lasting`: it decides what a later build or push does, so `clean` leaves it."""

    name: str
    what: str
    lasting: bool = False


KINDS: Final = (
    Kind(cache_folder.EXPORTS, "layers as BuildKit exports them, by builder"),
    Kind(cache_folder.LAYERS, "layers as they are in images"),
    Kind(cache_folder.UPPERMOST, "exports of builds whose runtime the registry has"),
    Kind(cache_folder.PULLED, "base and system packages, read from a registry for those"),
    Kind(cache_folder.REBUILDS, "what verify --rebuild builds, while it does"),
    Kind(cache_folder.SOURCES, "source trees of --source NAME=DIR, as builds are given them"),
    Kind(cache_folder.AUTHORITIES, "what --ca-bundle named, as builds are given it"),
    Kind(cache_folder.ENGINES, "which engines have shown that they can build"),
    # One that is made anew holds newer packages, and what is built on it has other digests.
    Kind(cache_folder.BASE, "the base of --base bootstrap", lasting=True),
    Kind(runtimes.FILE, "where runtimes with substitutes were pushed to", lasting=True),
)


@dataclass(frozen=True)
class Usage:
    """What one kind takes on the disk, in bytes; `shared`: so much of it is in images, too, as hard links."""

    kind: Kind
    path: Path
    size: int
    shared: int = 0

    @property
    def freed(self) -> int:
        """What the disk gets back once this is removed."""
        return self.size - self.shared


def usage() -> list[Usage]:
    """Return what there is, in the order of KINDS. Raises OSError."""
    places = [(kind, cache_folder.path() / kind.name) for kind in KINDS]
    return [_measure(kind, path) for kind, path in places if os.path.lexists(path)]


def clean(*, everything: bool = False) -> list[Usage]:
    """Remove what is kept, but for what lasts unless `everything`; return what was removed.

    Raises UsageError while a build uses it, OSError.
    """
    if not cache_folder.path().is_dir():
        return []
    with cache_folder.unused():
        found = [each for each in usage() if everything or not each.kind.lasting]
        for each in found:
            try:
                if each.path.is_dir() and not each.path.is_symlink():
                    shutil.rmtree(each.path)
                else:
                    each.path.unlink()
            except OSError as failed:
                failed.filename = str(each.path)  # rmtree names what lies in it, by its name alone
                raise
    return found


def _measure(kind: Kind, path: Path) -> Usage:
    seen: Counter[tuple[int, int]] = Counter()
    found: dict[tuple[int, int], os.stat_result] = {}
    for status in _statuses(path):
        inode = (status.st_dev, status.st_ino)
        seen[inode] += 1
        found[inode] = status
    size = sum(status.st_blocks for status in found.values())
    shared = sum(
        status.st_blocks
        for inode, status in found.items()
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > seen[inode]
    )
    return Usage(kind, path, size * _BLOCK, shared * _BLOCK)


def _statuses(path: Path) -> Iterator[os.stat_result]:
    """Yield what lies at and below a path, but for what goes meanwhile: a build may run."""
    for folder, folders, files in [("", [], [str(path)]), *os.walk(path)]:
        for name in (*folders, *files):
            try:
                yield os.lstat(os.path.join(folder, name))  # noqa: PTH118 - tens of thousands of them
            except FileNotFoundError:
                continue
