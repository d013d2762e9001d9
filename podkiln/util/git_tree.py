"""Hash a source tree the way git does, so that a directory can be compared with a pinned commit.

Format: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects. A commit names a tree by this hash, so no
checkout, no history and no git program are needed.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pod.util import git_objects
from pod.util.git_objects import EXECUTABLE, LINK, PLAIN, BlobHash
from podkiln.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

# What a checkout has beside its files, and what only running them leaves behind.
IGNORED = frozenset({".git", "__pycache__"})
# The tree of a folder without files.
EMPTY = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_CHUNK = 1 << 20
_DEEPEST = 200  # folders in each other; ComfyUI has 8


@dataclass(frozen=True)
class SourceFile:
    """A file of a source tree as git knows it: `path` from the root, git's mode, bytes of the content."""

    path: bytes
    place: Path
    mode: bytes
    size: int

    def pieces(self) -> Iterator[bytes]:
        """Yield the content; of a link, where it leads. Raises SourceError for a file that changes."""
        done = 0
        try:
            for piece in _linked(self.place) if self.mode == LINK else _read(self.place):
                done += len(piece)
                if done > self.size:
                    break
                yield piece
        except OSError as unreadable:
            raise _unreadable(unreadable, self.place) from None
        if done != self.size:
            raise SourceError(f"{self.place} changed while it was read.", hint="Try again once it stays.")


def files(folder: Path, submodules: Collection[str] = ()) -> list[SourceFile]:
    """Return the files of a folder, sorted by path, without .git and __pycache__. Raises SourceError.

    `submodules`: paths of folders that a tree only names; what lies there is not looked at.
    """
    others = {os.fsencode(each): each for each in submodules}
    try:
        return sorted(_files(folder, b"", others, 0), key=lambda each: each.path.split(b"/"))
    except OSError as unreadable:
        raise _unreadable(unreadable, folder) from None


def tree_id(folder: Path, submodules: Mapping[str, str] | None = None) -> str:
    """Return git's tree id of a folder, in hex, without .git and __pycache__. Raises SourceError.

    `submodules`: commits by path. A tree names them, and not what lies there.
    """
    entries = {}
    for each in files(folder, (submodules or {}).keys()):
        hashed = BlobHash(each.size)
        for piece in each.pieces():
            hashed.update(piece)
        entries[os.fsdecode(each.path)] = (each.mode, hashed.digest())
    return git_objects.tree_id(entries, submodules or {})


def tree_id_of(named: dict[str, bytes]) -> str:
    """Return git's tree id of plain files in one folder, given by name."""
    entries = {}
    for name, content in named.items():
        hashed = BlobHash(len(content))
        hashed.update(content)
        entries[name] = (PLAIN, hashed.digest())
    return git_objects.tree_id(entries, {})


def _files(folder: Path, path: bytes, others: Mapping[bytes, str], depth: int) -> Iterator[SourceFile]:
    """Yield the files below a folder: git does not know empty folders, so what they lie in says enough."""
    if depth > _DEEPEST:
        raise SourceError(f"{folder} lies more than {_DEEPEST} folders deep: no source tree is like that.")
    with os.scandir(folder) as found:
        listed = [entry for entry in found if entry.name not in IGNORED]
    for entry in listed:
        place, name = Path(entry.path), path + os.fsencode(entry.name)
        if name in others:
            continue
        if entry.is_symlink() or not entry.is_dir():
            within = next((each for raw, each in others.items() if raw.startswith(name + b"/")), None)
            if within:
                raise SourceError(f"{entry.path} is no folder, and the submodule {within} is to lie in it.")
        if entry.is_symlink():
            yield SourceFile(name, place, LINK, len(os.fsencode(place.readlink())))
        elif entry.is_dir():
            yield from _files(place, name + b"/", others, depth + 1)
        else:
            status = entry.stat()
            if not stat.S_ISREG(status.st_mode):
                raise SourceError(f"{entry.path} is neither a file, a folder nor a symlink.")
            mode = EXECUTABLE if status.st_mode & 0o100 else PLAIN
            yield SourceFile(name, place, mode, status.st_size)


def _linked(place: Path) -> Iterator[bytes]:
    yield os.fsencode(place.readlink())


def _read(place: Path) -> Iterator[bytes]:
    # What was listed as a file may be a link or a FIFO by now, which would lead elsewhere, or be waited for.
    handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _unreadable(wrong: OSError, folder: Path) -> SourceError:
    return SourceError(f"{wrong.filename or folder} cannot be read: {wrong.strerror or wrong}.")
