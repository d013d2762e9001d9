"""Hash a source tree the way git does, so that a directory can be compared with a pinned commit.

Format: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects. A commit names a tree by this hash, so no
checkout, no history and no git program are needed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from podkiln.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

# What a checkout has beside its files, and what only running them leaves behind.
IGNORED = frozenset({".git", "__pycache__"})
# The tree of a folder without files.
EMPTY = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_CHUNK = 1 << 20
_DEEPEST = 200  # folders in each other; ComfyUI has 8


def tree_id(folder: Path, submodules: Mapping[str, str] | None = None) -> str:
    """Return git's tree id of a folder, in hex, without .git and __pycache__. Raises SourceError.

    `submodules`: commits by path. A tree names them, and not what lies there, which is not looked at.
    """
    links = {tuple(path.split("/")): commit for path, commit in (submodules or {}).items()}
    try:
        return _tree(folder, links).hex()
    except OSError as unreadable:
        what = unreadable.filename or folder
        raise SourceError(f"{what} cannot be read: {unreadable.strerror or unreadable}.") from None


def tree_id_of(files: dict[str, bytes]) -> str:
    """Return git's tree id of plain files in one folder, given by name."""
    lines = [b"100644 " + os.fsencode(name) + b"\0" + _blob(files[name]) for name in sorted(files)]
    return _hash_tree(lines).hex()


def _tree(folder: Path | None, links: Mapping[tuple[str, ...], str], depth: int = 0) -> bytes:
    """Return the digest of a folder's tree; None: it is there for the submodules in it alone."""
    if depth > _DEEPEST:
        raise SourceError(f"{folder} lies more than {_DEEPEST} folders deep: no source tree is like that.")
    listed: list[os.DirEntry[str]] = []
    if folder is not None:
        with os.scandir(folder) as found:
            listed = [entry for entry in found if entry.name not in IGNORED]
    entries = [
        (os.fsencode(path[0]), b"160000 " + os.fsencode(path[0]) + b"\0" + bytes.fromhex(commit))
        for path, commit in links.items()
        if len(path) == 1
    ]
    inner = {path[0]: _below(links, path[0]) for path in links if len(path) > 1}
    for name in inner.keys() - {entry.name for entry in listed}:
        digest = _tree(None, inner[name], depth + 1)
        entries.append((os.fsencode(name) + b"/", b"40000 " + os.fsencode(name) + b"\0" + digest))
    for entry in listed:
        if (entry.name,) in links:
            continue
        mode, digest = _entry(entry, inner.get(entry.name, {}), depth)
        if mode is None:
            continue
        # git sorts a directory as if its name ended in a slash.
        key = os.fsencode(entry.name) + (b"/" if mode == b"40000" else b"")
        entries.append((key, mode + b" " + os.fsencode(entry.name) + b"\0" + digest))
    return _hash_tree([line for _, line in sorted(entries)])


def _hash_tree(lines: list[bytes]) -> bytes:
    body = b"".join(lines)
    return hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False).digest()


def _below(links: Mapping[tuple[str, ...], str], name: str) -> dict[tuple[str, ...], str]:
    return {path[1:]: commit for path, commit in links.items() if len(path) > 1 and path[0] == name}


def _entry(
    entry: os.DirEntry[str], links: Mapping[tuple[str, ...], str], depth: int
) -> tuple[bytes | None, bytes]:
    if entry.is_symlink():
        return b"120000", _blob(os.fsencode(Path(entry.path).readlink()))
    if entry.is_dir():
        digest = _tree(Path(entry.path), links, depth + 1)
        # git does not know empty folders.
        return (None, b"") if digest.hex() == EMPTY else (b"40000", digest)
    status = entry.stat()
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{entry.path} is neither a file, a folder nor a symlink.")
    return (b"100755" if status.st_mode & 0o100 else b"100644"), _file(entry.path, status.st_size)


def _blob(content: bytes) -> bytes:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).digest()


def _file(path: str, size: int) -> bytes:
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()
