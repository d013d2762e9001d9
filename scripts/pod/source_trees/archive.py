"""Unpack a commit's archive into an empty folder, whatever it holds, and return what it is to git.

Such an archive has one folder at its top, and in it files, folders and links. Nothing else is unpacked;
nothing is written outside of the folder, and no link leads out of it. Links are made last, so that nothing is
written through one.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import tarfile
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pod.util import git_objects
from pod.util.dataclass import dataclass, field
from pod.util.printable import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

LARGEST = 2 << 30  # bytes, unpacked
MOST = 100_000  # files, folders and links
DEEPEST = 100
_LONGEST_READ = 1 << 20  # bytes: tarfile reads headers of any length at once, as long as they say they are
_CHUNK = 1 << 18
# What tarfile, gzip and the system make of archives that are damaged, cut off, or made to do harm.
# RecursionError: it follows headers that announce a header, each with a call.
_DAMAGE = (
    *(tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile),
    *(ValueError, OverflowError, RecursionError),
)


class ArchiveError(Exception):
    """An archive that is not unpacked; the message goes on after what it is."""


class UnreadableError(ArchiveError):
    """An archive that its disk does not give back: the same one may be read from elsewhere."""


def unpack(archive: BinaryIO, folder: Path, largest: int = LARGEST) -> dict[str, tuple[bytes, bytes]]:
    """Unpack a .tar.gz into an empty folder; return mode and git's id of each file and link, by its path.

    Raises ArchiveError, and OSError where the folder cannot be written: for that no archive is at fault.
    """
    unpacking = _Unpacking(folder, largest)
    try:
        with gzip.GzipFile(fileobj=archive) as plain:
            for member, path, source in _members(plain, largest):
                unpacking.add(member, path, source)
    except _DAMAGE as damage:
        raise ArchiveError(f"is no whole .tar.gz ({shown(damage, 80)})") from None
    unpacking.make_links()
    if not unpacking.entries:
        raise ArchiveError("holds no files")
    return unpacking.entries


def _members(plain: gzip.GzipFile, largest: int) -> Iterator[tuple[tarfile.TarInfo, str, tarfile.TarFile]]:
    """Yield what is in an archive, each with its path below the top folder."""
    top: str | None = None
    with tarfile.open(fileobj=_Bounded(plain, largest), mode="r:") as tar:  # type: ignore[call-overload]
        for count, member in enumerate(tar):
            if count >= MOST:
                raise ArchiveError(f"holds more than {MOST} files")
            first, _, path = member.name.rstrip("/").partition("/")
            if top is None:
                top = first
            if first != top:
                raise ArchiveError("has more than one folder at its top")
            if path and first:
                yield member, path, tar
            elif not member.isdir() or not first:
                raise ArchiveError("has no folder at its top")


class _Bounded:
    """What tarfile reads from: it ends where an archive unpacks to too much, or wants too much at once."""

    def __init__(self, plain: gzip.GzipFile, largest: int) -> None:
        self._plain = plain
        self._largest = largest + MOST * 1024  # headers
        self.tell = plain.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_READ:
            raise ArchiveError("has a header that no commit's archive has")
        self._check(self._plain.tell() + size)
        with _reading():
            return self._plain.read(size)

    def seek(self, offset: int) -> int:
        self._check(offset)
        with _reading():
            return self._plain.seek(offset)

    def _check(self, offset: int) -> None:
        if offset > self._largest:
            raise ArchiveError(f"unpacks to more than {self._largest >> 20} MiB")


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Tell failures to read the archive from those to write what is in it."""
    try:
        yield
    except gzip.BadGzipFile:  # an OSError too
        raise
    except OSError as error:
        raise UnreadableError(f"cannot be read ({error.strerror or error})") from None


@contextlib.contextmanager
def _placing(path: str) -> Iterator[None]:
    """Say what is wrong with a path that no disk takes beside the others. Raises ArchiveError."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise ArchiveError(f"holds {shown(path, 80)} twice") from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise ArchiveError(f"holds {shown(path, 80)}, which is too long a name") from None


@dataclass
class _Unpacking:
    """A folder that is being filled."""

    folder: Path
    left: int
    entries: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def add(self, member: tarfile.TarInfo, path: str, source: tarfile.TarFile) -> None:
        """Take one file, folder or link."""
        parts = path.split("/")
        if len(parts) > DEEPEST or any(part in ("", ".", "..") or part.lower() == ".git" for part in parts):
            raise ArchiveError(f"holds {shown(path, 80)}, which is no path of a file in a tree")
        target = self.folder.joinpath(*parts)
        with _placing(path):
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif member.issym():
                self.links[path] = member.linkname
            elif member.isreg() and not member.issparse():
                target.parent.mkdir(parents=True, exist_ok=True)
                self.entries[path] = self._file(member, target, source)
            else:
                raise ArchiveError(f"holds {shown(path, 80)}, which is neither a file, a folder nor a link")

    def _file(self, member: tarfile.TarInfo, target: Path, source: tarfile.TarFile) -> tuple[bytes, bytes]:
        self.left -= member.size
        if member.size < 0 or self.left < 0:
            raise ArchiveError("unpacks to too much")
        program = bool(member.mode & 0o100)
        content: Any = source.extractfile(member)
        blob = git_objects.BlobHash(member.size)
        made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755 if program else 0o644)
        with os.fdopen(made, "wb") as file:
            while data := content.read(_CHUNK):
                blob.update(data)
                file.write(data)
            if file.tell() != member.size:
                raise ArchiveError("ends too early")
        return (git_objects.EXECUTABLE if program else git_objects.PLAIN), blob.digest()

    def make_links(self) -> None:
        """Make the links, and see that none leads out, over others neither."""
        for path, target in self.links.items():
            if any(str(parent) in self.links for parent in PurePosixPath(path).parents):
                raise ArchiveError(f"holds {shown(path, 80)}, which lies below a link")
            raw = os.fsencode(target)
            blob = git_objects.BlobHash(len(raw))
            blob.update(raw)
            self.entries[path] = (git_objects.LINK, blob.digest())
            place = self.folder / path
            try:
                with _placing(path):
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.symlink_to(target)
            except (ValueError, FileNotFoundError):  # an empty target, or one with a NUL byte
                raise ArchiveError(f"holds {shown(path, 80)}, a link to nothing") from None
        root = os.path.realpath(self.folder)
        for path in self.links:
            if not f"{os.path.realpath(self.folder / path)}/".startswith(f"{root}/"):
                raise ArchiveError(f"holds {shown(path, 80)}, a link that leads out of it")
