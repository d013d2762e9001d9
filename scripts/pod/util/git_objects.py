"""git's ids of contents and trees, from what lies in them: neither history nor a git program is needed.

Format: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PLAIN, EXECUTABLE, LINK = b"100644", b"100755", b"120000"
"""The modes of files that git knows."""
_FOLDER, _SUBMODULE = b"40000", b"160000"


class BlobHash:
    """The id of a file's content, fed piece by piece; its size has to be known."""

    def __init__(self, size: int) -> None:
        self._digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

    def update(self, data: bytes) -> None:
        """Add what comes next."""
        self._digest.update(data)

    def digest(self) -> bytes:
        """Return the id."""
        return self._digest.digest()


def tree_id(entries: Mapping[str, tuple[bytes, bytes]], submodules: Mapping[str, str]) -> str:
    """Return a tree's id in hex.

    Args:
        entries: Mode and id of each file and link, by its path.
        submodules: The commit of each, by its path: a tree names them, and not what lies there.
    """
    found = dict(entries)
    found |= {path: (_SUBMODULE, bytes.fromhex(commit)) for path, commit in submodules.items()}
    root: dict[str, Any] = {}
    for path, entry in found.items():
        *folders, name = path.split("/")
        here = root
        for folder in folders:
            here = here.setdefault(folder, {})
        here[name] = entry
    return _tree(root).hex()


def _tree(folder: Mapping[str, Any]) -> bytes:
    lines = []
    for name, entry in folder.items():
        inner = isinstance(entry, dict)
        mode, digest = (_FOLDER, _tree(entry)) if inner else entry
        # git sorts a folder as if its name ended in a slash.
        key = os.fsencode(name) + (b"/" if inner else b"")
        lines.append((key, mode + b" " + os.fsencode(name) + b"\0" + digest))
    body = b"".join(line for _, line in sorted(lines))
    return hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False).digest()
