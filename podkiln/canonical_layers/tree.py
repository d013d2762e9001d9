"""The file system that layers make, one on another, and what of the next layer changes nothing in it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from podkiln.canonical_layers.entries import FOLDER, HARD_LINK, OPAQUE, WHITEOUT, Entry

if TYPE_CHECKING:
    from collections.abc import Sequence


class Tree:
    """What lies where after some layers: the entry of each path."""

    def __init__(self) -> None:
        self._found: dict[bytes, Entry] = {}
        self._inside: dict[bytes, set[bytes]] = {}

    def lay(self, entries: Sequence[Entry]) -> list[Entry]:
        """Lay a layer over what is here; returns its entries that changed something.

        One differ repeats a folder or file that has not changed, another does not. A file with several
        names is kept: that they are one file cannot be seen from one of the names.
        """
        for entry in entries:
            self._hide(entry)
        shared = {entry.target for entry in entries if entry.kind == HARD_LINK}
        opaque = {entry.folder for entry in entries if entry.name == OPAQUE}
        kept = shared | opaque
        changed = [entry for entry in entries if entry.path in kept or not self._holds(entry)]
        for entry in changed:
            self._put(entry)
        return changed

    def _hide(self, entry: Entry) -> None:
        """Take away what a whiteout hides (image-spec layer.md, "Whiteouts")."""
        if entry.name == OPAQUE:
            for name in list(self._inside.get(entry.folder, ())):
                self._remove(name)
        elif entry.name.startswith(WHITEOUT):
            hidden = entry.name.removeprefix(WHITEOUT)
            self._remove(b"/".join(filter(None, (entry.folder, hidden))))

    def _holds(self, entry: Entry) -> bool:
        if entry.kind == HARD_LINK or entry.name.startswith(WHITEOUT):
            return False
        below = self._found.get(entry.path)
        if below and entry.kind == FOLDER:  # a folder's time tells only that something in it has changed
            below = replace(below, time=entry.time)
        return below == entry

    def _put(self, entry: Entry) -> None:
        if entry.name.startswith(WHITEOUT):
            return
        if entry.kind != FOLDER:
            self._remove(entry.path)
        self._found[entry.path] = entry
        # A layer may lack the folders that its files lie in; what hides one of them hides these all the same.
        path = entry.path
        while path:
            folder = path.rpartition(b"/")[0]
            inside = self._inside.setdefault(folder, set())
            if path in inside:
                break
            inside.add(path)
            path = folder

    def _remove(self, path: bytes) -> None:
        self._inside.get(path.rpartition(b"/")[0], set()).discard(path)
        waiting = [path]
        while waiting:
            gone = waiting.pop()
            waiting += self._inside.pop(gone, ())
            self._found.pop(gone, None)
