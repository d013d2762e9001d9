"""Opening files where others can plant something: on a volume that pods, hosts and people share.

A link, a FIFO, a device or a socket in the place of one of podkiln's own files would lead a write astray, or
would let an open() wait for ever. So a file is opened without following a link and without waiting, and what
has been opened is looked at before it is used. A folder called `.podkiln`, and those in it, may be no links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = ".podkiln"
_SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_WRITES = os.O_WRONLY | os.O_RDWR
_KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

Name = str | os.PathLike[str]


class PlantedError(OSError):
    """Something else lies where a file or folder of podkiln's own is expected: `strerror` says what."""

    def __init__(self, path: Name, what: str, expected: str = "a plain file") -> None:
        reason = f"{os.fspath(path)} is {what} where {expected} is expected: remove it"
        super().__init__(errno.ELOOP, reason, os.fspath(path))


def open_plain(path: Name, flags: int, mode: int = 0o666, *, linked: bool = False) -> int:
    """Open a plain file and return its descriptor; never waits, never follows a link.

    A file that is opened to be written must have no second name (a hard link leads astray too), unless
    `linked` allows it. Raises PlantedError, OSError.
    """
    check_folders(path)
    try:
        descriptor = os.open(path, flags | _SAFE, mode)
    except OSError as error:
        # ELOOP: a link; ENXIO: a FIFO without a reader, or a socket
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR} and (what := kind(path)):
            raise PlantedError(path, what) from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise PlantedError(path, _name(status.st_mode) or "not a file")  # noqa: TRY301
        if flags & _WRITES and not linked and status.st_nlink > 1:
            raise PlantedError(path, "a hard link to another file")  # noqa: TRY301
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_plain(path: Name, largest: int) -> bytes:
    """Read a plain file of at most `largest` bytes. Raises PlantedError, OSError."""
    descriptor = open_plain(path, os.O_RDONLY)
    try:
        if os.fstat(descriptor).st_size > largest:
            raise PlantedError(path, f"a file of more than {largest} bytes", "a smaller one")
        found = bytearray()
        while len(found) <= largest and (block := os.read(descriptor, 1 << 20)):
            found += block
    finally:
        os.close(descriptor)
    return bytes(found)


def remove(path: Name) -> None:
    """Remove a file, if one is there. Raises PlantedError for a folder, OSError."""
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return
    except OSError:  # of a folder EISDIR or, as POSIX has it, EPERM
        if (what := kind(path)) == "a folder":
            raise PlantedError(path, what) from None
        raise


def make_folder(path: Name) -> None:
    """Make a folder and those above it. Raises PlantedError, OSError."""
    check_folders(os.path.join(path, ""))  # noqa: PTH118 - the boot path does without pathlib
    os.makedirs(path, exist_ok=True)  # noqa: PTH103


def check_folders(path: Name) -> None:
    """Check that a folder `.podkiln` in a path, and those in it, are no links. Raises PlantedError."""
    folder = os.path.dirname(os.fspath(path))  # noqa: PTH120
    parts = folder.split("/")
    if OURS not in parts:
        return
    for end in range(parts.index(OURS) + 1, len(parts) + 1):
        place = "/".join(parts[:end])
        try:
            mode = os.lstat(place).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(mode):
            raise PlantedError(place, _name(mode) or "a file", "a folder")


def kind(path: Name) -> str | None:
    """Say what lies somewhere when it is not a plain file; None for a plain file, and for nothing."""
    try:
        return _name(os.lstat(path).st_mode)
    except OSError:
        return None


def set_mode(path: Name, mode: int, *, folder: bool = False) -> None:
    """Change the permissions of a file or folder, never of what a link leads to. Raises OSError."""
    if folder:
        check_folders(os.path.join(path, ""))  # noqa: PTH118
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _SAFE)
    else:
        descriptor = open_plain(path, os.O_RDONLY)
        if os.fstat(descriptor).st_nlink > 1:
            os.close(descriptor)
            raise PlantedError(path, "a hard link to another file")
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Name, mode: int = 0o666) -> Iterator[int]:
    """Write a file aside, and give it its name at the end; yields a descriptor. Raises OSError."""
    folder, name = os.path.split(os.fspath(path))
    make_folder(folder)
    # By chance, and not by its process: pods that share a volume have processes of one number.
    aside = os.path.join(folder, f".{name}.{os.urandom(4).hex()}")  # noqa: PTH118
    descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE, mode)
    try:
        yield descriptor
    except BaseException:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(aside)  # noqa: PTH108
        raise
    os.close(descriptor)
    os.replace(aside, path)  # noqa: PTH105


def _name(mode: int) -> str | None:
    return next((name for test, name in _KINDS if test(mode)), None)
