"""The entries of a layer's tar, without their contents, and the file system that layers make one on another.

BuildKit's differs agree on the files and disagree on the rest: the order of entries, header forms, whether a
folder is repeated that has not changed. So an entry here holds what a file is, and nothing of how it was
written down.

Sources: OCI image-spec v1.1 layer.md (whiteouts); POSIX.1-2017 pax; docs.python.org/3/library/tarfile.html.
"""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, BinaryIO, Final

from podkiln.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILE, HARD_LINK, LINK, CHARACTER, BLOCK, FOLDER, FIFO = (b"%d" % number for number in range(7))
"""The type flags of POSIX.1-2017 pax, "ustar Interchange Format"."""

WHITEOUT: Final = b".wh."
OPAQUE: Final = b".wh..wh..opq"
_CHUNK: Final = 1 << 20
_XATTR: Final = "SCHILY.xattr."
_KEPT: Final = ("security.capability",)
_MAX_DEVICE: Final = 0o7777777  # seven octal digits of a ustar header
_MAX_TARGET: Final = 1024  # bytes, less one, that every file system takes of a link
# What describes the builder's machine, and not the file.
_DROPPED: Final = ("security.selinux", "security.ima", "security.evm", "user.overlay.", "trusted.overlay.")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: `path` is relative, without a slash at the end; empty for the root.

    Equal ones are the same file. `content` is the SHA-256 of a regular file's, of `size` bytes at `offset` of
    the tar; `target` of a hard link is a path, of a link what it says. `device` is major and minor;
    `attributes` are extended ones, by name.
    """

    path: bytes
    kind: bytes
    mode: int
    owner: int
    group: int
    time: int
    size: int = 0
    content: bytes = b""
    offset: int = field(default=0, compare=False)
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
        """By parts, so that a folder stands before all that lies in it and nothing between; whiteouts first.

        Some unpackers take entries as they come: a whiteout behind the file of its name would remove that.
        """
        return [b"-" + each if each.startswith(WHITEOUT) else b"." + each for each in self.path.split(b"/")]


def read(tar: BinaryIO, where: str, epoch: int) -> list[Entry]:
    """Return the entries of a layer, sorted by path.

    Args:
        tar: An uncompressed tar that can be sought in; it is read to its end.
        where: What it is called in messages.
        epoch: The latest time that a file may have, in seconds.

    Raises IntegrityError for a tar that is damaged, or holds what no rule is known for.
    """
    found: dict[bytes, Entry] = {}
    try:
        with tarfile.open(fileobj=tar, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            for member in archive:
                content = _digest(tar, member) if member.isreg() and not member.issparse() else b""
                entry = _entry(member, content, epoch, where)
                if entry.path in found:
                    raise _refused(f"{where} has {_shown(entry.path)} twice.")
                found[entry.path] = entry
            _check_end(tar, archive.offset)
    except RecursionError:  # tarfile calls itself for each header of a chain of them
        raise IntegrityError(f"{where} could not be read as a tar: it has headers of headers.") from None
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as wrong:
        raise IntegrityError(f"{where} could not be read as a tar: {wrong}.") from wrong
    _check_folders(found, where)
    return sorted(_relinked(found, where), key=lambda each: each.sort_key)


def _digest(tar: BinaryIO, member: tarfile.TarInfo) -> bytes:
    """Return the SHA-256 of a file's content. Raises EOFError."""
    tar.seek(member.offset_data)
    hashed, left = hashlib.sha256(), member.size
    while left:
        piece = tar.read(min(_CHUNK, left))
        if not piece:
            raise EOFError("it ends within a file")
        hashed.update(piece)
        left -= len(piece)
    return hashed.digest()


def _check_end(tar: BinaryIO, offset: int) -> None:
    """See that zeros follow: tarfile takes a damaged header for the end. Raises ValueError."""
    tar.seek(offset)
    while piece := tar.read(_CHUNK):
        if piece.strip(b"\0"):
            raise ValueError("something follows its end")


def _refused(message: str) -> IntegrityError:
    """Return the error for what no differ of BuildKit writes, but another maker of a base may have."""
    hint = "Layers of a base of your own (--base) are written anew, too: take one that docker built."
    return IntegrityError(message, hint=hint)


def _entry(member: tarfile.TarInfo, content: bytes, epoch: int, where: str) -> Entry:
    path = _plain(member.name, where)
    kind = b"0" if member.type in (tarfile.AREGTYPE, b"0") else member.type
    if kind not in (FILE, HARD_LINK, LINK, CHARACTER, BLOCK, FOLDER, FIFO) or member.sparse is not None:
        raise _refused(f"{where} has {_shown(path)}, of a kind ({kind!r}) that no layer holds.")
    target = member.linkname.encode(errors="surrogateescape") if kind in (HARD_LINK, LINK) else b""
    for text in (path, target):
        if not _is_utf8(text) or b"\0" in text:
            raise _refused(f"{where} has {_shown(path)}, whose name or target is not UTF-8, or has a NUL.")
    if not path and kind != FOLDER:
        raise _refused(f"{where} has something that is no folder in the place of its root.")
    if kind in (HARD_LINK, LINK) and not target:
        raise _refused(f"{where} has the link {_shown(path)} to nothing.")
    if path.rpartition(b"/")[2] in (WHITEOUT, WHITEOUT + b".", WHITEOUT + b".."):
        raise _refused(f"{where} has the whiteout {_shown(path)}, which names nothing.")
    if min(member.uid, member.gid) < 0 or max(member.devmajor, member.devminor) > _MAX_DEVICE:
        raise _refused(f"{where} has {_shown(path)} with an owner or a device number that no tar can hold.")
    if len(target) >= _MAX_TARGET:
        raise _refused(f"{where} has the link {_shown(path)} to a path of {len(target)} bytes.")
    return Entry(
        path=path,
        kind=kind,
        mode=member.mode & 0o7777,
        owner=member.uid,
        group=member.gid,
        time=max(0, min(int(member.mtime), epoch)),
        size=member.size if kind == FILE else 0,
        content=content,
        offset=member.offset_data,
        target=_plain(member.linkname, where) if kind == HARD_LINK else target,
        device=(member.devmajor, member.devminor) if kind in (CHARACTER, BLOCK) else (0, 0),
        attributes=_attributes(member.pax_headers, path, where),
    )


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _plain(name: str, where: str) -> bytes:
    """Return a path without the ways of writing it that differ."""
    parts = [part for part in name.encode(errors="surrogateescape").split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise _refused(f"{where} has the path {_shown(b'/'.join(parts))}, which leads out of it.")
    return b"/".join(parts)


def _attributes(headers: Mapping[str, str], path: bytes, where: str) -> tuple[tuple[bytes, bytes], ...]:
    kept = []
    for header, value in headers.items():
        name = header.removeprefix(_XATTR)
        if name == header or name.startswith(_DROPPED):
            continue
        if name not in _KEPT:
            raise _refused(f"{where} has {_shown(path)} with the attribute {name!r}: no rule says what for.")
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
        yield replace(entry, path=first)
        for each in names[1:]:
            yield replace(entry, path=each.path, kind=HARD_LINK, size=0, content=b"", target=first)


def _check_folders(found: Mapping[bytes, Entry], where: str) -> None:
    """Refuse what lies in something that is no folder."""
    for path in found:
        folder = path.rpartition(b"/")[0]
        if folder in found and found[folder].kind != FOLDER:
            raise _refused(f"{where} has {_shown(path)}, and {_shown(folder)} is no folder.")


def _origin(entry: Entry, found: Mapping[bytes, Entry], where: str) -> Entry:
    """Return what a hard link leads to in the end; a differ always writes that into the same layer."""
    seen = {entry.path}
    while entry.kind == HARD_LINK:
        if entry.target not in found or entry.target in seen:
            raise _refused(
                f"{where} has {_shown(entry.path)} as a name of {_shown(entry.target)}, which it lacks."
            )
        entry = found[entry.target]
        seen.add(entry.path)
    if entry.kind == FOLDER:
        raise _refused(f"{where} has a hard link to {_shown(entry.path)}, which is a folder.")
    return entry


def _shown(path: bytes) -> str:
    return repr(path.decode(errors="backslashreplace"))
