"""The entries of a layer's tar, without their contents, and the file system that layers make one on another.

BuildKit's differs agree on the files and disagree on the rest: the order of entries, header forms, whether a
folder is repeated that has not changed. So an entry here holds what a file is, and nothing of how it was
written down.

Sources: OCI image-spec v1.1 layer.md (whiteouts); POSIX.1-2017 pax; docs.python.org/3/library/tarfile.html.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from podkiln.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Kind: TypeAlias = Literal[b"0", b"1", b"2", b"3", b"4", b"5", b"6"]
FILE, HARD_LINK, LINK, CHARACTER, BLOCK, FOLDER, FIFO = (b"%d" % number for number in range(7))
"""The type flags of POSIX.1-2017 pax, "ustar Interchange Format"."""

WHITEOUT: Final = b".wh."
OPAQUE: Final = b".wh..wh..opq"
_XATTR: Final = "SCHILY.xattr."
_KEPT: Final = ("security.capability",)
# What describes the builder's machine, and not the file.
_DROPPED: Final = ("security.selinux", "security.ima", "security.evm", "user.overlay.", "trusted.overlay.")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: `path` is relative, without a slash at the end; empty for the root.

    `size` in bytes, at `offset` of the tar; `target` of a hard link is a path, of a link what it says.
    `device` is major and minor; `attributes` are extended ones, by name.
    """

    path: bytes
    kind: bytes
    mode: int
    owner: int
    group: int
    time: int
    size: int = 0
    offset: int = 0
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    attributes: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def name(self) -> bytes:
        """The last part of the path."""
        return self.path.rpartition(b"/")[2]

    @property
    def folder(self) -> bytes:
        """The path of the folder that it lies in; empty at the top."""
        return self.path.rpartition(b"/")[0]

    @property
    def sort_key(self) -> list[bytes]:
        """By parts, so that a folder stands before all that lies in it and nothing between."""
        return self.path.split(b"/")

    def same_but_content(self, other: Entry) -> bool:
        """Tell whether two entries describe one file; contents of equal size remain to be compared."""
        return self._described == other._described

    @property
    def _described(self) -> tuple[object, ...]:
        return (
            self.path,
            self.kind,
            self.mode,
            self.owner,
            self.group,
            self.time,
            self.size,
            self.target,
            self.device,
            self.attributes,
        )


def read(path: Path, epoch: int) -> list[Entry]:
    """Return the entries of an uncompressed layer in the canonical order, times being `epoch` at most.

    Raises IntegrityError for what is not a tar, and for what no differ of BuildKit writes.
    """
    where = f"The layer {path.name[:12]} of the build"
    found: dict[bytes, Entry] = {}
    try:
        with tarfile.open(path, "r:", encoding="utf-8", errors="surrogateescape") as archive:
            for member in archive:
                entry = _entry(member, epoch, where)
                if entry.path in found:
                    raise IntegrityError(f"{where} has {_shown(entry.path)} twice.")
                found[entry.path] = entry
    except (tarfile.TarError, EOFError, OSError) as wrong:
        raise IntegrityError(f"{where} could not be read as a tar: {wrong}.") from wrong
    return sorted(_relinked(found, where), key=lambda each: each.sort_key)


def _entry(member: tarfile.TarInfo, epoch: int, where: str) -> Entry:
    path = _plain(member.name, where)
    kind = b"0" if member.type in (tarfile.AREGTYPE, b"0") else member.type
    if kind not in (FILE, HARD_LINK, LINK, CHARACTER, BLOCK, FOLDER, FIFO) or member.sparse is not None:
        raise IntegrityError(f"{where} has {_shown(path)}, of a kind ({kind!r}) that no layer holds.")
    target = member.linkname.encode(errors="surrogateescape") if kind in (HARD_LINK, LINK) else b""
    return Entry(
        path=path,
        kind=kind,
        mode=member.mode & 0o7777,
        owner=member.uid,
        group=member.gid,
        time=max(0, min(int(member.mtime), epoch)),
        size=member.size if kind == FILE else 0,
        offset=member.offset_data,
        target=_plain(member.linkname, where) if kind == HARD_LINK else target,
        device=(member.devmajor, member.devminor) if kind in (CHARACTER, BLOCK) else (0, 0),
        attributes=_attributes(member.pax_headers, path, where),
    )


def _plain(name: str, where: str) -> bytes:
    """Return a path without the ways of writing it that differ."""
    parts = [part for part in name.encode(errors="surrogateescape").split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise IntegrityError(f"{where} has the path {_shown(b'/'.join(parts))}, which leads out of it.")
    return b"/".join(parts)


def _attributes(headers: Mapping[str, str], path: bytes, where: str) -> tuple[tuple[bytes, bytes], ...]:
    kept = []
    for header, value in headers.items():
        name = header.removeprefix(_XATTR)
        if name == header or name.startswith(_DROPPED):
            continue
        if name not in _KEPT:
            raise IntegrityError(
                f"{where} has {_shown(path)} with the attribute {name!r}: no rule says what for."
            )
        kept.append((name.encode(), value.encode(errors="surrogateescape")))
    return tuple(sorted(kept))


def _relinked(found: Mapping[bytes, Entry], where: str) -> Iterator[Entry]:
    """Give the content of files with several names to the first of them in the canonical order."""
    groups: dict[bytes, list[Entry]] = {}
    for entry in found.values():
        if entry.kind == HARD_LINK:
            groups.setdefault(_origin(entry, found, where).path, []).append(entry)
    for entry in found.values():
        if entry.kind == HARD_LINK:
            continue
        names = sorted([entry, *groups.get(entry.path, ())], key=lambda each: each.sort_key)
        first = names[0].path
        yield _renamed(entry, first)
        for each in names[1:]:
            yield _renamed(entry, each.path, kind=HARD_LINK, size=0, target=first)


def _renamed(entry: Entry, path: bytes, **changes: object) -> Entry:
    values = {name: getattr(entry, name) for name in Entry.__slots__}
    return Entry(**{**values, "path": path, **changes})


def _origin(entry: Entry, found: Mapping[bytes, Entry], where: str) -> Entry:
    """Return what a hard link leads to in the end; a differ always writes that into the same layer."""
    seen = {entry.path}
    while entry.kind == HARD_LINK:
        if entry.target not in found or entry.target in seen:
            raise IntegrityError(
                f"{where} has {_shown(entry.path)} as a name of {_shown(entry.target)}, which it lacks."
            )
        entry = found[entry.target]
        seen.add(entry.path)
    return entry


def _shown(path: bytes) -> str:
    return repr(path.decode(errors="backslashreplace"))
