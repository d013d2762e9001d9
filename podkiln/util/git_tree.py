"""Hash a source tree the way git does, so that a directory can be compared with a pinned commit.

Format: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects. A commit names a tree by this hash, so no
checkout, no history and no git program are needed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from podkiln.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What a checkout has beside its files, and what only running them leaves behind.
IGNORED = frozenset({".git", "__pycache__"})
# The tree of a folder without files.
EMPTY = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
PLAIN: Final = b"100644"
EXECUTABLE: Final = b"100755"
LINK: Final = b"120000"
"""The modes of files that git knows."""
_FOLDER: Final = b"40000"
_CHUNK = 1 << 20
_DEEPEST = 200  # folders in each other; ComfyUI has 8

_Folder: TypeAlias = "dict[bytes, _Folder | tuple[bytes, bytes]]"
"""By name: a folder, or mode and hash of a file."""


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


def files(folder: Path) -> list[SourceFile]:
    """Return the files of a folder, sorted by path, without .git and __pycache__. Raises SourceError."""
    try:
        return sorted(_files(folder, b"", 0), key=lambda each: each.path.split(b"/"))
    except OSError as unreadable:
        raise _unreadable(unreadable, folder) from None


def tree_id(folder: Path) -> str:
    """Return git's tree id of a folder, in hex, without .git and __pycache__. Raises SourceError."""
    found = []
    for each in files(folder):
        hashed = blob_hasher(each.size)
        for piece in each.pieces():
            hashed.update(piece)
        found.append((each.path, each.mode, hashed.digest()))
    return id_of(found)


def tree_id_of(named: dict[str, bytes]) -> str:
    """Return git's tree id of plain files in one folder, given by name."""
    found = []
    for name, content in named.items():
        hashed = blob_hasher(len(content))
        hashed.update(content)
        found.append((os.fsencode(name), PLAIN, hashed.digest()))
    return id_of(found)


def id_of(found: Iterable[tuple[bytes, bytes, bytes]]) -> str:
    """Return git's tree id of files, each with path, mode and the hash of its content."""
    root: _Folder = {}
    for path, mode, digest in found:
        *folders, name = path.split(b"/")
        place = root
        for each in folders:
            inner = place.setdefault(each, {})
            assert isinstance(inner, dict)  # noqa: S101 - a folder and a file cannot have one name
            place = inner
        place[name] = (mode, digest)
    return _tree(root).hex()


def blob_hasher(size: int) -> hashlib._Hash:
    """Return what a content of so many bytes is hashed with."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def _tree(folder: _Folder) -> bytes:
    lines = []
    for name, held in folder.items():
        mode, digest = (_FOLDER, _tree(held)) if isinstance(held, dict) else held
        # git sorts a directory as if its name ended in a slash.
        lines.append((name + b"/" if mode == _FOLDER else name, mode + b" " + name + b"\0" + digest))
    body = b"".join(line for _, line in sorted(lines))
    return hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False).digest()


def _files(folder: Path, path: bytes, depth: int) -> Iterator[SourceFile]:
    """Yield the files below a folder: git does not know empty folders, so what they lie in says enough."""
    if depth > _DEEPEST:
        raise SourceError(f"{folder} lies more than {_DEEPEST} folders deep: no source tree is like that.")
    with os.scandir(folder) as found:
        listed = [entry for entry in found if entry.name not in IGNORED]
    for entry in listed:
        place, name = Path(entry.path), path + os.fsencode(entry.name)
        if entry.is_symlink():
            yield SourceFile(name, place, LINK, len(os.fsencode(place.readlink())))
        elif entry.is_dir():
            yield from _files(place, name + b"/", depth + 1)
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
